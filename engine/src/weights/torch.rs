//! `silence_latent.pt`: a file of `torch.save`, which is a zip archive of stored (never
//! compressed) entries. The tensor's bytes are the entry `.../data/0`; the pickle beside them
//! is never executed, only searched for the element type.

use super::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use std::path::Path;

/// Largest file that is read; the published one has 3.8 MB.
const MAX_BYTES: u64 = 1 << 30;
const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const NONE_16: u64 = 0xffff;
const NONE_32: u64 = 0xffff_ffff;

/// The latent of silence.
#[derive(Debug, Clone, PartialEq)]
pub struct Silence {
    /// Latent frames, 25 per second.
    pub frames: usize,
    /// Channels of a frame.
    pub channels: usize,
    /// `(frames, channels)`, row-major.
    pub data: Vec<f32>,
}

impl Silence {
    /// The silence of a DiT directory: `silence_latent.pt`, or the tensor `silence_latent` that
    /// other packagings keep with the weights, `(1, N, channels)` or `(N, channels)`.
    pub fn load(dir: &Path, checkpoint: &Checkpoint, channels: usize) -> Result<Self> {
        let file = dir.join("silence_latent.pt");
        let Some(tensor) = checkpoint.get("silence_latent").filter(|_| !file.exists()) else {
            return Silence::read(&file, channels);
        };
        let data = checkpoint.read_f32("silence_latent")?;
        if tensor.shape.last() != Some(&channels) || data.is_empty() {
            return Err(Error::Corrupt(format!(
                "{}: silence_latent: expected [1, N, {channels}], found {:?}",
                checkpoint.file(tensor).display(),
                tensor.shape
            )));
        }
        if let Some(i) = data.iter().position(|x| !x.is_finite()) {
            return Err(Error::Corrupt(format!(
                "{}: silence_latent: the value of frame {} is not finite: download the file again",
                checkpoint.file(tensor).display(),
                i / channels
            )));
        }
        Ok(Silence {
            frames: data.len() / channels,
            channels,
            data,
        })
    }

    /// Reads a file that holds f32 `[1, channels, N]` and returns it transposed.
    pub fn read(path: &Path, channels: usize) -> Result<Self> {
        let size = match std::fs::metadata(path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing(format!(
                    "{} is missing: it belongs to every published DiT folder",
                    path.display()
                )));
            }
            Err(e) => return Err(Error::Missing(format!("{}: {e}", path.display()))),
        };
        if size > MAX_BYTES {
            return Err(Error::Corrupt(format!(
                "{}: {size} bytes, expected about 4 million: download the file again",
                path.display()
            )));
        }
        let bytes = std::fs::read(path)
            .map_err(|e| Error::Missing(format!("{} cannot be read: {e}", path.display())))?;
        Silence::parse(&bytes, channels).map_err(|what| {
            Error::Corrupt(format!(
                "{}: {what}: download the file again",
                path.display()
            ))
        })
    }

    /// As [`Silence::read`], from memory. The error says what is wrong and at which byte.
    pub fn parse(file: &[u8], channels: usize) -> std::result::Result<Self, String> {
        let entries = entries(file)?;
        let find = |end: &str| entries.iter().find(|e| e.name.ends_with(end.as_bytes()));
        let data = find("/data/0")
            .ok_or("no entry ends in /data/0")?
            .bytes(file)?;
        if let Some(order) = find("/byteorder")
            && order.bytes(file)?.starts_with(b"big")
        {
            return Err("the numbers are big-endian, expected little-endian".into());
        }
        if let Some(pickle) = find("/data.pkl") {
            let pickle = pickle.bytes(file)?;
            let holds = |s: &str| pickle.windows(s.len()).any(|w| w == s.as_bytes());
            if holds("Storage") && !holds("\nFloatStorage\n") && !holds("FloatStorage\u{94}") {
                return Err("the tensor is not of 32-bit floats".into());
            }
        }
        let row = channels * 4;
        if data.is_empty() || row == 0 || data.len() % row != 0 {
            return Err(format!(
                "the tensor has {} bytes, expected a multiple of {row} ({channels} channels)",
                data.len()
            ));
        }
        let frames = data.len() / row;
        let mut out = vec![0f32; frames * channels];
        for (c, channel) in data.chunks_exact(frames * 4).enumerate() {
            for (t, b) in channel.as_chunks::<4>().0.iter().enumerate() {
                out[t * channels + c] = f32::from_le_bytes(*b);
            }
        }
        if let Some(i) = out.iter().position(|x| !x.is_finite()) {
            return Err(format!("the value of frame {} is not finite", i / channels));
        }
        Ok(Silence {
            frames,
            channels,
            data: out,
        })
    }

    /// The file's bytes as `torch.save` would lay them out: stored entries, the data aligned to
    /// 64 bytes.
    pub fn to_torch(&self) -> Vec<u8> {
        let (t, c) = (self.frames, self.channels);
        let mut data = Vec::with_capacity(t * c * 4);
        for channel in 0..c {
            for frame in 0..t {
                data.extend_from_slice(&self.data[frame * c + channel].to_le_bytes());
            }
        }
        let parts: [(&str, Vec<u8>); 5] = [
            ("silence_latent/data.pkl", pickle(&[1, c, t])),
            ("silence_latent/.format_version", b"1".to_vec()),
            ("silence_latent/byteorder", b"little".to_vec()),
            ("silence_latent/data/0", data),
            ("silence_latent/version", b"3\n".to_vec()),
        ];
        archive(&parts)
    }
}

struct Entry {
    name: Vec<u8>,
    method: u64,
    encrypted: bool,
    size: u64,
    stored: u64,
    header: u64,
}

impl Entry {
    /// The entry's bytes, which must be stored and lie within the file.
    fn bytes<'a>(&self, file: &'a [u8]) -> std::result::Result<&'a [u8], String> {
        let name = String::from_utf8_lossy(&self.name);
        if self.method != 0 || self.encrypted || self.stored != self.size {
            return Err(format!(
                "entry {name} is compressed or encrypted, expected it stored"
            ));
        }
        let at = usize::try_from(self.header).map_err(|_| "an offset beyond memory")?;
        if number(file, at, 4)? != u64::from(LOCAL) {
            return Err(format!("entry {name}: no local header at byte {at}"));
        }
        let skip = 30 + number(file, at + 26, 2)? + number(file, at + 28, 2)?;
        let start = self.header.checked_add(skip);
        let end = start.and_then(|s| s.checked_add(self.size));
        let (Some(start), Some(end)) = (start, end) else {
            return Err(format!("entry {name} does not end"));
        };
        if end > file.len() as u64 {
            return Err(format!(
                "entry {name} ends at byte {end}, the file at {}",
                file.len()
            ));
        }
        Ok(&file[start as usize..end as usize])
    }
}

/// A little-endian number of `width` bytes at `at`.
fn number(file: &[u8], at: usize, width: usize) -> std::result::Result<u64, String> {
    let bytes = at
        .checked_add(width)
        .and_then(|end| file.get(at..end))
        .ok_or_else(|| format!("the file ends within the archive's directory (byte {at})"))?;
    Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// The central directory.
fn entries(file: &[u8]) -> std::result::Result<Vec<Entry>, String> {
    let last = file
        .len()
        .checked_sub(22)
        .ok_or("too short for an archive")?;
    let first = last.saturating_sub(0xffff);
    let end = (first..=last)
        .rev()
        .find(|at| number(file, *at, 4) == Ok(u64::from(END)))
        .ok_or("not a zip archive, or cut off: the end of its directory is missing")?;
    let mut count = number(file, end + 10, 2)?;
    let mut at = number(file, end + 16, 4)?;
    if count == NONE_16 || at == NONE_32 {
        let locator = end
            .checked_sub(20)
            .ok_or("the 64-bit directory is missing")?;
        if number(file, locator, 4)? != u64::from(LOCATOR_64) {
            return Err("the 64-bit directory is missing".into());
        }
        let end_64 = usize::try_from(number(file, locator + 8, 8)?)
            .map_err(|_| "an offset beyond memory")?;
        if number(file, end_64, 4)? != u64::from(END_64) {
            return Err(format!("no 64-bit directory at byte {end_64}"));
        }
        count = number(file, end_64.saturating_add(32), 8)?;
        at = number(file, end_64.saturating_add(48), 8)?;
    }
    let mut at = usize::try_from(at).map_err(|_| "an offset beyond memory")?;
    let mut out = Vec::new();
    for _ in 0..count {
        if number(file, at, 4)? != u64::from(CENTRAL) {
            return Err(format!("no directory entry at byte {at}"));
        }
        let field = |offset: usize, width: usize| number(file, at + offset, width);
        let (name, extra, comment) = (field(28, 2)?, field(30, 2)?, field(32, 2)?);
        let mut entry = Entry {
            name: Vec::new(),
            method: field(10, 2)?,
            encrypted: field(8, 2)? & 1 == 1,
            stored: field(20, 4)?,
            size: field(24, 4)?,
            header: field(42, 4)?,
        };
        let name_end = at + 46 + name as usize;
        let extra_end = name_end + extra as usize;
        let cut = || format!("the directory entry at byte {at} is cut off");
        entry.name = file.get(at + 46..name_end).ok_or_else(cut)?.to_vec();
        widen(&mut entry, file.get(name_end..extra_end).ok_or_else(cut)?)?;
        at = extra_end + comment as usize;
        out.push(entry);
    }
    Ok(out)
}

/// Takes sizes that do not fit 32 bits from the extra field 1, in its fixed order.
fn widen(entry: &mut Entry, extra: &[u8]) -> std::result::Result<(), String> {
    let mut at = 0;
    while at + 4 <= extra.len() {
        let (id, size) = (number(extra, at, 2)?, number(extra, at + 2, 2)? as usize);
        if id == 1 {
            let mut field = at + 4;
            for value in [&mut entry.size, &mut entry.stored, &mut entry.header] {
                if *value == NONE_32 {
                    *value = number(extra, field, 8)?;
                    field += 8;
                }
            }
        }
        at += 4 + size;
    }
    Ok(())
}

/// A pickle (protocol 2) that rebuilds a contiguous f32 tensor of this shape from storage 0.
fn pickle(shape: &[usize; 3]) -> Vec<u8> {
    let mut out = Vec::new();
    let global = |out: &mut Vec<u8>, module: &str, name: &str| {
        out.extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
    };
    let text = |out: &mut Vec<u8>, s: &str| {
        out.push(b'X');
        out.extend_from_slice(&(s.len() as u32).to_le_bytes());
        out.extend_from_slice(s.as_bytes());
    };
    let int = |out: &mut Vec<u8>, n: usize| {
        out.push(b'J');
        out.extend_from_slice(&(n as u32).to_le_bytes());
    };
    out.extend_from_slice(b"\x80\x02");
    global(&mut out, "torch._utils", "_rebuild_tensor_v2");
    out.extend_from_slice(b"((");
    text(&mut out, "storage");
    global(&mut out, "torch", "FloatStorage");
    text(&mut out, "0");
    text(&mut out, "cpu");
    int(&mut out, shape.iter().product());
    out.extend_from_slice(b"tQ");
    int(&mut out, 0);
    out.push(b'(');
    shape.iter().for_each(|n| int(&mut out, *n));
    out.extend_from_slice(b"t(");
    int(&mut out, shape[1] * shape[2]);
    int(&mut out, shape[2]);
    int(&mut out, 1);
    out.extend_from_slice(b"t\x89");
    global(&mut out, "collections", "OrderedDict");
    out.extend_from_slice(b")RtR.");
    out
}

/// A zip archive of stored entries.
fn archive(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in parts {
        let header = out.len() as u32;
        // Padding so that the data starts at a multiple of 64, as torch does: an extra field
        // with the letters FB.
        let padding = (64 - (out.len() + 34 + name.len()) % 64) % 64;
        let mut common = Vec::new();
        common.extend_from_slice(&20u16.to_le_bytes());
        common.extend_from_slice(&[0; 8]);
        common.extend_from_slice(&crc32(data).to_le_bytes());
        common.extend_from_slice(&(data.len() as u32).to_le_bytes());
        common.extend_from_slice(&(data.len() as u32).to_le_bytes());
        common.extend_from_slice(&(name.len() as u16).to_le_bytes());
        out.extend_from_slice(&LOCAL.to_le_bytes());
        out.extend_from_slice(&common);
        out.extend_from_slice(&(padding as u16 + 4).to_le_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"FB");
        out.extend_from_slice(&(padding as u16).to_le_bytes());
        out.resize(out.len() + padding, b'Z');
        out.extend_from_slice(data);
        directory.extend_from_slice(&CENTRAL.to_le_bytes());
        directory.extend_from_slice(&0u16.to_le_bytes());
        directory.extend_from_slice(&common);
        directory.extend_from_slice(&[0; 12]);
        directory.extend_from_slice(&header.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend_from_slice(&directory);
    out.extend_from_slice(&END.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(parts.len() as u16).to_le_bytes());
    out.extend_from_slice(&(parts.len() as u16).to_le_bytes());
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out
}

/// CRC-32 (IEEE 802.3, reflected polynomial 0xEDB88320).
fn crc32(data: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (i, slot) in table.iter_mut().enumerate() {
        *slot = (0..8).fold(i as u32, |c, _| {
            (c >> 1) ^ (0xedb8_8320 & (c & 1).wrapping_neg())
        });
    }
    !data.iter().fold(!0u32, |c, b| {
        (c >> 8) ^ table[((c ^ u32::from(*b)) & 0xff) as usize]
    })
}

#[cfg(test)]
#[path = "torch_tests.rs"]
mod tests;
