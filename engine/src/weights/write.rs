//! Writing checkpoints: safetensors files streamed tensor by tensor, directories that appear
//! only when they are complete.

use super::init::{Gauss, Rule, Stream};
use super::published::Kind;
use crate::error::{Error, Result, human_bytes};
use crate::models::layout::Named;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Largest shard, as the published models were split.
const SHARD_BYTES: u64 = 5_000_000_000;
/// Elements written at a time.
const CHUNK: usize = 1 << 19;

/// How far a long write is; called about every megabyte.
pub struct Progress<'a> {
    done: u64,
    total: u64,
    report: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Progress<'a> {
    /// Reports bytes done of `total` to `report`.
    pub fn new(total: u64, report: &'a mut dyn FnMut(u64, u64)) -> Self {
        report(0, total);
        Progress {
            done: 0,
            total,
            report,
        }
    }

    /// Counts bytes.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        (self.report)(self.done, self.total);
    }
}

/// A failure to write, as a sentence.
pub fn unwritable(path: &Path, e: &std::io::Error) -> Error {
    let remedy = match e.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            ": free some space or choose another disk"
        }
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            ": choose a directory you may write to"
        }
        _ => "",
    };
    Error::Output(format!("{} cannot be written: {e}{remedy}", path.display()))
}

/// A directory that is filled under another name and takes its own when it is complete. What is
/// unfinished is removed.
pub struct Partial {
    temporary: PathBuf,
    finished: PathBuf,
}

impl Partial {
    /// Starts the directory `finished`; its parents are made. What processes that are no more
    /// left unfinished under this name is removed.
    pub fn begin(finished: &Path) -> Result<Self> {
        let name = finished
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or_else(|| {
                Error::Output(format!(
                    "{} is not a name for a new directory",
                    finished.display()
                ))
            })?;
        let parent = match finished.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|e| unwritable(parent, &e))?;
        remove_stale(parent, name);
        // Two threads may be making the same tree, as two processes may.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = parent.join(format!(".{name}.partial-{}-{number}", std::process::id()));
        fs::create_dir(&temporary).map_err(|e| unwritable(&temporary, &e))?;
        Ok(Partial {
            temporary,
            finished: finished.to_path_buf(),
        })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the directory its name. Fails when something else has taken it meanwhile.
    pub fn finish(self) -> Result<()> {
        fs::rename(&self.temporary, &self.finished).map_err(|e| unwritable(&self.finished, &e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone after `finish`; otherwise there is nobody to tell.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Removes the temporary directories for `name` of processes that ended without tidying up.
fn remove_stale(parent: &Path, name: &str) {
    let prefix = format!(".{name}.partial-");
    // Only tidying: what cannot be listed or removed is nobody's loss but of space.
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(|n| {
            let (process, number) = n.strip_prefix(&prefix)?.split_once('-')?;
            number.parse::<u32>().ok()?;
            process.parse::<u32>().ok()
        });
        if owner.is_some_and(|process| !is_alive(process)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a process of this number may exist.
#[cfg(unix)]
fn is_alive(process: u32) -> bool {
    let Ok(process) = libc::pid_t::try_from(process) else {
        return false;
    };
    // 0 would mean our own group.
    if process == 0 {
        return false;
    }
    // SAFETY: signal 0 is never delivered, it only asks whether the process is there.
    let gone = unsafe { libc::kill(process, 0) } != 0
        && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    !gone
}

/// Without a way to ask, everybody may be alive.
#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

/// Writes a file of text or bytes.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(|e| unwritable(path, &e))
}

/// Writes JSON as people read it.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_file(path, format!("{value:#}\n").as_bytes())
}

/// Bytes of a bf16 safetensors file with these tensors.
pub fn file_bytes(tensors: &[Named]) -> u64 {
    header(tensors).len() as u64
        + tensors
            .iter()
            .map(|(_, shape)| tensor_bytes(shape))
            .sum::<u64>()
}

/// Bytes of a bf16 checkpoint, whichever number of files it becomes.
pub fn checkpoint_bytes(tensors: &[Named]) -> u64 {
    shards(tensors, SHARD_BYTES)
        .iter()
        .map(|shard| file_bytes(shard))
        .sum()
}

fn tensor_bytes(shape: &[usize]) -> u64 {
    shape.iter().map(|n| *n as u64).product::<u64>() * 2
}

/// Length prefix and JSON header of a bf16 file; tensors lie in the order of the list.
fn header(tensors: &[Named]) -> Vec<u8> {
    let mut text = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut at = 0;
    for (name, shape) in tensors {
        let end = at + tensor_bytes(shape);
        let entry = json!(name).to_string();
        let shape = json!(shape).to_string();
        text +=
            &format!(r#",{entry}:{{"dtype":"BF16","shape":{shape},"data_offsets":[{at},{end}]}}"#);
        at = end;
    }
    text.push('}');
    while text.len() % 8 != 0 {
        text.push(' ');
    }
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

/// Splits a list greedily into files of at most `limit` bytes of tensors.
fn shards(tensors: &[Named], limit: u64) -> Vec<&[Named]> {
    let mut out = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (i, (_, shape)) in tensors.iter().enumerate() {
        let more = tensor_bytes(shape);
        if bytes + more > limit && i > first {
            out.push(&tensors[first..i]);
            (first, bytes) = (i, 0);
        }
        bytes += more;
    }
    out.push(&tensors[first..]);
    out
}

/// Writes the random weights of one model into `dir`: one file, or shards with an index.
pub fn write_weights(
    dir: &Path,
    kind: Kind,
    tensors: &[Named],
    seed: u64,
    progress: &mut Progress,
) -> Result<()> {
    write_split(dir, kind, tensors, seed, SHARD_BYTES, progress)
}

fn write_split(
    dir: &Path,
    kind: Kind,
    tensors: &[Named],
    seed: u64,
    limit: u64,
    progress: &mut Progress,
) -> Result<()> {
    let gauss = Gauss::new();
    let rule = Rule::new(kind, tensors);
    let stem = if kind == Kind::Vae {
        "diffusion_pytorch_model"
    } else {
        "model"
    };
    let shards = shards(tensors, limit);
    let mut weight_map = serde_json::Map::new();
    for (i, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => format!("{stem}.safetensors"),
            n => format!("{stem}-{:05}-of-{n:05}.safetensors", i + 1),
        };
        let path = dir.join(&name);
        write_shard(&path, shard, &rule, &gauss, seed, progress)
            .map_err(|e| unwritable(&path, &e))?;
        weight_map.extend(
            shard
                .iter()
                .map(|(tensor, _)| (tensor.clone(), json!(name))),
        );
    }
    if shards.len() > 1 {
        let size: u64 = tensors.iter().map(|(_, shape)| tensor_bytes(shape)).sum();
        let index = json!({"metadata": {"total_size": size}, "weight_map": weight_map});
        write_json(&dir.join(format!("{stem}.safetensors.index.json")), &index)?;
    }
    Ok(())
}

fn write_shard(
    path: &Path,
    tensors: &[Named],
    rule: &Rule,
    gauss: &Gauss,
    seed: u64,
    progress: &mut Progress,
) -> std::io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&header(tensors))?;
    let mut chunk = vec![0u16; CHUNK];
    for (name, shape) in tensors {
        let table = gauss.bits(rule.spread(name, shape));
        let stream = Stream::new(seed, name);
        let len: usize = shape.iter().product();
        for first in (0..len).step_by(CHUNK) {
            let part = &mut chunk[..CHUNK.min(len - first)];
            stream.fill(&table, first as u64, part);
            part.iter_mut().for_each(|bits| *bits = bits.to_le());
            out.write_all(bytemuck::cast_slice(part))?;
            progress.add(part.len() as u64 * 2);
        }
    }
    out.into_inner().map_err(|e| e.into_error())?;
    Ok(())
}

/// Refuses when the disk of `dir` (or of its nearest existing parent) has less than `needs`
/// bytes free.
pub fn check_space(dir: &Path, needs: u64) -> Result<()> {
    let absolute = std::path::absolute(dir).map_err(|e| unwritable(dir, &e))?;
    let existing = absolute
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let have = free_bytes(existing).map_err(|e| unwritable(existing, &e))?;
    if needs > have {
        return Err(Error::Output(format!(
            "{} needs {}, its disk has {} free: free some space or choose another disk",
            dir.display(),
            human_bytes(needs),
            human_bytes(have)
        )));
    }
    Ok(())
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero bytes are a valid value of this plain structure of integers.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a NUL-terminated string and `stat` is writable, both for the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast)] // narrower on some systems
    Ok((stat.f_bavail as u64).saturating_mul(stat.f_frsize as u64))
}

/// Without a way to ask, the write itself will tell.
#[cfg(not(unix))]
fn free_bytes(_: &Path) -> std::io::Result<u64> {
    Ok(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::checkpoint::Checkpoint;
    use super::super::published;
    use super::*;

    #[test]
    fn the_header_is_what_readers_expect() {
        let tensors: Vec<Named> = [("a.weight", vec![3, 5]), ("norm.weight", vec![7])]
            .map(|(n, s)| (n.to_string(), s))
            .to_vec();
        let dir = tempfile::tempdir().unwrap();
        let mut seen = Vec::new();
        let mut report = |done, total| seen.push((done, total));
        let mut progress = Progress::new(44, &mut report);
        write_weights(dir.path(), Kind::Lm, &tensors, 5, &mut progress).unwrap();
        assert_eq!(seen, [(0, 44), (30, 44), (44, 44)]);
        let c = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(c.files().map(|(_, n)| n).sum::<u64>(), file_bytes(&tensors));
        assert_eq!(c.get("a.weight").unwrap().shape, [3, 5]);
        let norm = c.read_f32("norm.weight").unwrap();
        assert!(norm.iter().all(|x| (0.5..1.5).contains(x)), "{norm:?}");
    }

    #[test]
    fn large_models_are_split_as_published() {
        let count = |config, kind: Kind| {
            let tensors = kind.tensors(&config).unwrap();
            let shards = shards(&tensors, SHARD_BYTES);
            let sizes = shards.iter().map(|s| file_bytes(s));
            assert!(sizes.into_iter().all(|n| n < SHARD_BYTES + (1 << 20)));
            assert_eq!(shards.concat(), tensors);
            shards.len()
        };
        assert_eq!(count(published::dit(true), Kind::Dit), 1);
        assert_eq!(count(published::lm(2560, 36, 32, 9728), Kind::Lm), 2);
        assert_eq!(count(published::dit_xl(), Kind::Dit), 2);
    }

    #[test]
    fn split_weights_equal_whole_ones() {
        let tensors: Vec<Named> = (0..5)
            .map(|i| (format!("layers.{i}.weight"), vec![4, 8]))
            .collect();
        let dir = tempfile::tempdir().unwrap();
        let mut silent = |_, _| {};
        let mut progress = Progress::new(0, &mut silent);
        let read = |limit, progress: &mut Progress| {
            let dir = dir.path().join(format!("{limit}"));
            fs::create_dir(&dir).unwrap();
            write_split(&dir, Kind::Lm, &tensors, 1, limit, progress).unwrap();
            let c = Checkpoint::open(&dir).unwrap();
            let values = tensors
                .iter()
                .map(|(n, _)| c.read_f32(n).unwrap())
                .collect::<Vec<_>>();
            (values, c.files().count())
        };
        let (whole, one) = read(1000, &mut progress);
        let (split, three) = read(130, &mut progress);
        assert_eq!((one, three), (1, 3));
        assert_eq!(whole, split);
    }

    #[cfg(unix)]
    #[test]
    fn leavings_of_ended_processes_are_removed() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let ended = child.id();
        child.wait().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| {
            fs::create_dir(dir.path().join(&name)).unwrap();
            fs::write(dir.path().join(&name).join("x"), b"x").unwrap();
            name
        };
        let stale = make(format!(".model.partial-{ended}-0"));
        let kept = [
            make(format!(".model.partial-{}-77777", std::process::id())),
            make(format!(".other.partial-{ended}-0")),
            make(".model.partial-x-0".into()),
            make(format!(".model.partial-{ended}")),
        ];
        let partial = Partial::begin(&dir.path().join("model")).unwrap();
        assert!(!dir.path().join(stale).exists());
        assert!(kept.iter().all(|name| dir.path().join(name).is_dir()));
        partial.finish().unwrap();
    }

    #[test]
    fn an_unfinished_directory_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let partial = Partial::begin(&dir.path().join("deep/model")).unwrap();
        write_file(&partial.path().join("x"), b"x").unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
        assert!(Partial::begin(Path::new("/")).is_err());
    }
}
