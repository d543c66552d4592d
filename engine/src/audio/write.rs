//! Writes a song so that its name appears only once it is whole: into a temporary file beside
//! it, which is then renamed.

use super::{AudioFormat, Pcm, Tags, aac, flac, mp3, ogg_opus, tags, wav};
use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `pcm` to `path`, replacing a file of that name; a link keeps pointing to the file that
/// is replaced. On failure nothing is left behind and the previous file stays.
///
/// # Errors
/// [`Error::Output`] naming the path and the cause: no such directory, not writable, disk full,
/// something there that is no regular file.
pub fn write(path: &Path, pcm: Pcm, format: AudioFormat, about: Option<&Tags>) -> Result<()> {
    let id3 = || about.map(tags::id3_tag).unwrap_or_default();
    let info = || about.map(tags::info_list).unwrap_or_default();
    let comments = || tags::vorbis_comments(about);
    write_whole(path, |file| match format {
        AudioFormat::Wav => wav::write_i16(file, pcm, &info()),
        AudioFormat::Wav32 => wav::write_f32(file, pcm, &info()),
        AudioFormat::Flac => flac::encode(pcm, &comments()).and_then(|b| file.write_all(&b)),
        AudioFormat::Opus(kbps) => {
            ogg_opus::encode(pcm, kbps, &comments()).and_then(|b| file.write_all(&b))
        }
        AudioFormat::Aac(kbps) => aac::encode(pcm, kbps)
            .and_then(|bytes| file.write_all(&id3()).and_then(|()| file.write_all(&bytes))),
        AudioFormat::Mp3(settings) => mp3::encode(pcm, settings)
            .and_then(|bytes| file.write_all(&id3()).and_then(|()| file.write_all(&bytes))),
    })
}

/// Writes a file as [`write`] does, with the contents that `fill` gives it.
///
/// # Errors
/// As [`write`].
pub fn write_whole(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<()> {
    let failed = |e: io::Error| Error::Output(explain(path, &e));
    let target = target(path).map_err(failed)?;
    let partial = Partial::beside(&target).map_err(failed)?;
    let mut file = BufWriter::with_capacity(1 << 18, File::create(&partial.0).map_err(failed)?);
    fill(&mut file)
        .and_then(|()| file.into_inner().map_err(|e| e.into_error()))
        // Some file systems report a full disk only now; after the rename it would be too late.
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&partial.0, &target))
        .map_err(failed)
}

/// The regular file, there or not, that `path` leads to. Whatever else lies at the end of the
/// path would be lost if a file took its name.
fn target(path: &Path) -> io::Result<PathBuf> {
    let other = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let own = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(path.to_path_buf()),
        own => own?.file_type(),
    };
    if !own.is_symlink() && own.is_file() {
        return Ok(path.to_path_buf());
    }
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => other("it is a link to nothing"),
        Err(e) => Err(e),
        Ok(end) if end.is_dir() => other("it is a directory; name a file in it"),
        Ok(end) if !end.is_file() => other("it is a device, pipe or socket; name a file"),
        Ok(_) => std::fs::canonicalize(path),
    }
}

/// What a person reads when `path` could not be written.
fn explain(path: &Path, e: &io::Error) -> String {
    let advice = match e.kind() {
        io::ErrorKind::NotFound => "its directory does not exist; create it first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "the directory is not writable; choose another or change its permissions"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; make room and try again"
        }
        _ => "",
    };
    let dash = if advice.is_empty() { "" } else { ": " };
    format!("cannot write {}{dash}{advice} ({e})", path.display())
}

/// A file that is removed unless it was renamed.
struct Partial(PathBuf);

impl Partial {
    fn beside(path: &Path) -> io::Result<Self> {
        // Numbered, for several writers may be after the same name.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        temporary.push(format!(".{}-{number}.part", std::process::id()));
        Ok(Partial(path.with_file_name(temporary)))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a successful rename there is nothing of this name; either way the outcome has
        // been reported already.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SONG: Pcm<'static> = Pcm {
        samples: &[0.25; 9600],
        rate: 48_000,
    };

    #[test]
    fn every_format_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["wav", "wav32", "flac", "opus", "aac", "mp3"] {
            let format = AudioFormat::parse(name).unwrap();
            let path = dir
                .path()
                .join(format!("song-{name}.{}", format.extension()));
            std::fs::write(&path, "old").unwrap();
            write(&path, SONG, format, None).unwrap();
            let read = crate::audio::read::read(&path, 1.0, &crate::song::NoWatch).unwrap();
            // AAC comes in whole frames.
            let more = if name == "aac" { 2 * 320 } else { 0 };
            assert_eq!(read.len(), SONG.samples.len() + more, "{name}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nowhere/song.wav");
        let error = write(&path, SONG, AudioFormat::Wav, None).unwrap_err();
        let Error::Output(text) = error else {
            panic!("{error:?}")
        };
        assert!(text.contains("nowhere/song.wav") && text.contains("directory does not exist"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("song");
        // A directory of the target's name cannot be replaced by a file.
        std::fs::create_dir(&path).unwrap();
        assert!(matches!(
            write(&path, SONG, AudioFormat::Mp3(Default::default()), None),
            Err(Error::Output(_))
        ));
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = |to: &Path, name: &str| {
            let link = dir.path().join(name);
            std::os::unix::fs::symlink(to, &link).unwrap();
            link
        };
        let dangling = link(Path::new("nowhere"), "dangling");
        let linked = link(&socket, "linked");
        for (path, why) in [
            (Path::new("/dev/null"), "device"),
            (&socket, "socket"),
            (&linked, "socket"),
            (&dangling, "link to nothing"),
            (dir.path(), "directory"),
        ] {
            let error = write(path, SONG, AudioFormat::Wav, None).unwrap_err();
            assert!(matches!(error, Error::Output(_)), "{error:?}");
            assert!(error.to_string().contains(why), "{error}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);

        let song = dir.path().join("song.wav");
        std::fs::write(&song, "old").unwrap();
        let alias = link(Path::new("song.wav"), "alias.wav");
        write(&alias, SONG, AudioFormat::Wav, None).unwrap();
        assert!(std::fs::symlink_metadata(&alias).unwrap().is_symlink());
        assert!(std::fs::metadata(&song).unwrap().len() > 1000);
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert!(matches!(
            write(Path::new("/"), SONG, AudioFormat::Wav, None),
            Err(Error::Output(_))
        ));
    }

    #[test]
    fn a_full_disk_is_said_so() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(explain(Path::new("a.wav"), &full).contains("a.wav: the disk is full"));
    }
}
