//! The files of `generate`: their formats and names, whether they can be written, writing them.

use super::codes;
use crate::resolve::Resolved;
use engine::audio::{self, Pcm, Tags};
use engine::song::{Song, sidecar};
use engine::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Formats that `--format` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FormatFlag {
    /// 16-bit PCM
    Wav,
    /// 32-bit float PCM
    Wav32,
    /// FLAC of 16 bits
    Flac,
    /// Opus in Ogg
    Opus,
    /// AAC-LC in ADTS
    Aac,
    /// MP3
    Mp3,
}

impl FormatFlag {
    /// Name as requests use it.
    pub fn name(self) -> &'static str {
        match self {
            FormatFlag::Wav => "wav",
            FormatFlag::Wav32 => "wav32",
            FormatFlag::Flac => "flac",
            FormatFlag::Opus => "opus",
            FormatFlag::Aac => "aac",
            FormatFlag::Mp3 => "mp3",
        }
    }

    /// Where a song goes that was given no name.
    pub fn default_file(self) -> PathBuf {
        let ending = match self {
            FormatFlag::Wav32 => "wav",
            other => other.name(),
        };
        PathBuf::from(format!("song.{ending}"))
    }
}

/// What was asked for, or what the file's ending says.
pub fn format_of(format: Option<FormatFlag>, out: Option<&Path>) -> Result<FormatFlag> {
    if let Some(format) = format {
        return Ok(format);
    }
    let Some(out) = out else {
        return Ok(FormatFlag::Wav);
    };
    let ending = out.extension().map(|e| e.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        None | Some("wav") => Ok(FormatFlag::Wav),
        Some("flac") => Ok(FormatFlag::Flac),
        Some("opus" | "ogg") => Ok(FormatFlag::Opus),
        Some("aac") => Ok(FormatFlag::Aac),
        Some("mp3") => Ok(FormatFlag::Mp3),
        Some(other) => Err(Error::Request(format!(
            "--out {}: the ending .{other} is not that of a format; use .wav, .flac, \
             .mp3, .opus, .ogg or .aac, or give --format",
            out.display()
        ))),
    }
}

/// Refuses an output that could not be written after all the work.
pub fn check_writable(flag: &str, out: &Path) -> Result<()> {
    let refuse = |why: String| Err(Error::Output(format!("{flag} {}: {why}", out.display())));
    if out.is_dir() {
        return refuse("this is a directory; name a file".into());
    }
    if out.file_name().is_none() {
        return refuse("this names no file".into());
    }
    let dir = match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    match tempfile::Builder::new()
        .prefix(".acestep-")
        .tempfile_in(dir)
    {
        Ok(_) => Ok(()),
        Err(e) => refuse(format!(
            "its directory cannot be written to ({e}); choose another"
        )),
    }
}

/// `song.wav` as `song-2.wav`; a single song keeps its name.
pub fn numbered(out: &Path, number: usize, of: usize) -> PathBuf {
    if of == 1 {
        return out.to_path_buf();
    }
    let mut name = out.file_stem().unwrap_or_default().to_os_string();
    name.push(format!("-{number}"));
    if let Some(ending) = out.extension() {
        name.push(".");
        name.push(ending);
    }
    out.with_file_name(name)
}

/// Writes every song of a request, and beside it its latents and the times of its lyrics.
pub fn write_songs(song: &Song, resolved: &Resolved, out: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (index, item) in song.items.iter().enumerate() {
        let path = numbered(out, index + 1, song.items.len());
        let pcm = Pcm {
            samples: &item.pcm,
            rate: song.sample_rate,
        };
        let request = &song.composed.request;
        let tags = Tags::new(&request.caption, &request.lyrics, item.seed, &request.model);
        audio::write(&path, pcm, resolved.format, Some(&tags))?;
        // A song without its latents is still a song.
        if let Err(error) = sidecar::write(&path, item, song.frames, &song.autoencoder) {
            eprintln!("the latents of {} were not kept: {error}", path.display());
        }
        if let Some(text) = item.lrc.as_ref().filter(|text| !text.is_empty()) {
            let text = format!("{text}\n");
            audio::write_whole(&path.with_extension("lrc"), |file| {
                file.write_all(text.as_bytes())
            })?;
        }
        files.push(path);
    }
    Ok(files)
}

/// Writes the codes of every song, where they are wanted.
pub fn write_codes(song: &Song, out: Option<&Path>) -> Result<Vec<PathBuf>> {
    let Some(out) = out else {
        return Ok(Vec::new());
    };
    let lists = &song.composed.request.codes;
    let mut files = Vec::new();
    for (index, list) in lists.iter().enumerate() {
        let path = numbered(out, index + 1, lists.len());
        codes::write(&path, list)?;
        files.push(path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_those_of_the_formats() {
        use clap::ValueEnum;
        let chosen = |out: &str| format_of(None, Some(Path::new(out)));
        for flag in FormatFlag::value_variants() {
            let known = audio::AudioFormat::parse(flag.name()).unwrap_or_else(|e| panic!("{e}"));
            let file = format!("song.{}", known.extension());
            assert_eq!(flag.default_file(), Path::new(&file));
            let named = chosen(&file).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(named.default_file(), flag.default_file());
        }
        assert!(matches!(chosen("A.OGG"), Ok(FormatFlag::Opus)));
        assert!(matches!(chosen("a.aiff"), Err(Error::Request(why)) if why.contains(".aiff")));
    }

    #[test]
    fn names_of_several_songs() {
        assert_eq!(
            numbered(Path::new("a/song.wav"), 1, 1),
            Path::new("a/song.wav")
        );
        assert_eq!(
            numbered(Path::new("a/song.wav"), 2, 3),
            Path::new("a/song-2.wav")
        );
        assert_eq!(numbered(Path::new("song"), 1, 2), Path::new("song-1"));
        assert_eq!(numbered(Path::new("a.b.mp3"), 1, 2), Path::new("a.b-1.mp3"));
    }

    #[test]
    fn outputs_that_cannot_be_written_are_refused_before_the_work() {
        for (out, why) in [
            ("/", "directory"),
            ("/nowhere/at/all/x.wav", "cannot be written"),
        ] {
            let refused = check_writable("--out", Path::new(out));
            assert!(refused.is_err_and(|e| e.to_string().contains(why)), "{out}");
        }
    }
}
