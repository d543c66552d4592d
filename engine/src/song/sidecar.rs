//! The latents of a song, kept in a file beside it: a song of our own that is worked on again
//! need not be encoded, which costs time and a little of its sound. The file names the very bytes
//! of audio that it belongs to; beside audio that was edited or replaced it counts for nothing.

use super::request::SongItem;
use crate::audio::write_whole;
use crate::error::Result;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What the file's name adds to that of the audio.
pub const ENDING: &str = ".latents.safetensors";

/// The one tensor, `(T, C)` f32.
const TENSOR: &str = "latents";
/// Layout of the file.
const FORMAT: &str = "acestep-latents-1";
/// More than ten minutes of latents and a header.
const MAX_BYTES: u64 = 64 << 20;

/// What is kept of a song.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The latents that were decoded, `(T, C)`.
    pub latents: Vec<f32>,
    /// Seed of its noise.
    pub seed: u64,
    /// How much louder the audio is than what was decoded.
    pub gain: f32,
}

/// Where the latents of `audio` lie.
pub fn path_of(audio: &Path) -> PathBuf {
    let mut name = audio.as_os_str().to_owned();
    name.push(ENDING);
    PathBuf::from(name)
}

/// Keeps the latents of `item`, of `frames` frames, beside its finished file `audio`. Their name
/// appears only once the file is whole. `autoencoder` tells which one decoded them
/// ([`super::loaded::LoadedVae::fingerprint`]).
///
/// # Errors
/// [`crate::Error::Output`] when the audio cannot be read or the file cannot be written.
pub fn write(audio: &Path, item: &SongItem, frames: usize, autoencoder: &str) -> Result<PathBuf> {
    let path = path_of(audio);
    write_whole(&path, |file| {
        let bytes: Vec<u8> = item.latents.iter().flat_map(|x| x.to_le_bytes()).collect();
        let shape = vec![frames, item.latents.len() / frames.max(1)];
        let view = TensorView::new(Dtype::F32, shape, &bytes).map_err(io::Error::other)?;
        let about = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("engine".into(), env!("CARGO_PKG_VERSION").into()),
            ("seed".into(), item.seed.to_string()),
            ("gain".into(), item.gain.to_string()),
            ("autoencoder".into(), autoencoder.into()),
            ("audio_sha256".into(), digest_of(audio)?),
        ]);
        let bytes =
            safetensors::serialize([(TENSOR, view)], Some(about)).map_err(io::Error::other)?;
        file.write_all(&bytes)
    })?;
    Ok(path)
}

/// Removes a song and what is kept beside it. What is not there is none of our business.
pub fn remove_song(audio: &Path) {
    for path in [path_of(audio), audio.to_path_buf()] {
        let _ = std::fs::remove_file(path);
    }
}

/// The latents kept for `audio`, `None` where there are none. `Err` says why those that lie there
/// must not be used: the audio is then to be encoded.
pub fn read(
    audio: &Path,
    channels: usize,
    autoencoder: &str,
) -> std::result::Result<Option<Kept>, String> {
    let path = path_of(audio);
    let unread = |e: io::Error| format!("they cannot be read ({e})");
    let about = match std::fs::metadata(&path) {
        Ok(about) => about,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unread(e)),
    };
    // Opening a pipe would wait for whoever writes into it.
    if !about.is_file() {
        return Err("they are no file".into());
    }
    if about.len() > MAX_BYTES {
        return Err(format!("their file of {} bytes is too large", about.len()));
    }
    let mut bytes = Vec::new();
    let file = File::open(&path).map_err(unread)?;
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|e| format!("their file is damaged ({e})"))?;
    let none = HashMap::new();
    let about = header.metadata().as_ref().unwrap_or(&none);
    let field = |name: &str| {
        let value = about.get(name).map(String::as_str);
        value.ok_or_else(|| format!("their file does not say {name}"))
    };
    if field("format")? != FORMAT {
        return Err("their file has another layout".into());
    }
    if field("autoencoder")? != autoencoder {
        return Err("another autoencoder made them".into());
    }
    let digest = digest_of(audio).map_err(|e| format!("the audio cannot be read ({e})"))?;
    if field("audio_sha256")? != digest {
        return Err("the audio was changed since".into());
    }
    let number = |name: &str| {
        let gain: Option<f32> = field(name)?.parse().ok();
        let known = gain.filter(|x| x.is_finite() && *x > 0.0);
        known.ok_or_else(|| format!("their file says nonsense of {name}"))
    };
    Ok(Some(Kept {
        latents: latents(&bytes, channels)?,
        seed: field("seed")?
            .parse()
            .map_err(|_| "their file says nonsense of seed")?,
        gain: number("gain")?,
    }))
}

/// The tensor of a file, checked.
fn latents(bytes: &[u8], channels: usize) -> std::result::Result<Vec<f32>, String> {
    let file =
        SafeTensors::deserialize(bytes).map_err(|e| format!("their file is damaged ({e})"))?;
    let tensor = file
        .tensor(TENSOR)
        .map_err(|_| "their file has no tensor of them".to_owned())?;
    match (tensor.dtype(), tensor.shape()) {
        (Dtype::F32, [frames, width]) if *frames > 0 && *width == channels => {}
        (dtype, shape) => {
            return Err(format!(
                "they are {dtype:?} {shape:?}, not F32 [T, {channels}]"
            ));
        }
    }
    let values = tensor.data().chunks_exact(4);
    let values: Vec<f32> = values
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(values),
        false => Err("they are not finite".into()),
    }
}

/// SHA-256 of a file, hexadecimal.
fn digest_of(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn item() -> SongItem {
        SongItem {
            seed: u64::MAX,
            pcm: Vec::new(),
            latents: (0..12).map(|i| i as f32 * 0.37 - 1.0).collect(),
            gain: 1.7,
            lrc: None,
        }
    }

    fn song(dir: &tempfile::TempDir) -> PathBuf {
        let audio = dir.path().join("a song.wav");
        std::fs::write(&audio, b"not really music").unwrap();
        let kept = write(&audio, &item(), 3, "vae").unwrap();
        assert_eq!(kept, dir.path().join("a song.wav.latents.safetensors"));
        audio
    }

    #[test]
    fn what_is_kept_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let audio = song(&dir);
        let SongItem {
            seed,
            latents,
            gain,
            ..
        } = item();
        let kept = Kept {
            latents,
            seed,
            gain,
        };
        assert_eq!(read(&audio, 4, "vae"), Ok(Some(kept)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(read(&dir.path().join("other.wav"), 4, "vae"), Ok(None));
        remove_song(&audio);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let audio = song(&dir);
        let refused = |channels, vae: &str| read(&audio, channels, vae).unwrap_err();
        assert!(refused(64, "vae").contains("[T, 64]"));
        assert!(refused(4, "another").contains("another autoencoder"));
        std::fs::write(&audio, b"not really music!").unwrap();
        assert!(refused(4, "vae").contains("changed"));
        std::fs::remove_file(&audio).unwrap();
        assert!(refused(4, "vae").contains("cannot be read"));
    }

    #[test]
    fn damaged_files_are_refused_whatever_the_damage() {
        let dir = tempfile::tempdir().unwrap();
        let audio = song(&dir);
        let path = path_of(&audio);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(read(&audio, 4, "vae").is_err(), "{length} bytes");
        }
        let mut item = item();
        item.latents[5] = f32::NAN;
        write(&audio, &item, 3, "vae").unwrap();
        assert!(read(&audio, 4, "vae").is_err_and(|e| e.contains("finite")));
        item.latents[5] = 0.0;
        item.gain = f32::INFINITY;
        write(&audio, &item, 3, "vae").unwrap();
        assert!(read(&audio, 4, "vae").is_err_and(|e| e.contains("gain")));
        let huge = File::create(&path).unwrap();
        huge.set_len(MAX_BYTES + 1).unwrap();
        assert!(read(&audio, 4, "vae").is_err_and(|e| e.contains("too large")));
    }
}
