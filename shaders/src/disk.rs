//! What a driver made of shaders, kept in a file from start to start.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// A driver's cache of pipelines and its file.
pub struct Disk {
    cache: wgpu::PipelineCache,
    file: PathBuf,
    /// Length of what was saved last: the file is only written when there is something new.
    saved: Mutex<usize>,
}

impl Disk {
    /// The cache of `info`'s device in `folder`; `None` where the driver has none. A file that is
    /// not there, or that the driver does not know, is as good as an empty one.
    pub fn open(
        device: &wgpu::Device,
        info: &wgpu::AdapterInfo,
        folder: Option<&Path>,
    ) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder?.join(wgpu::util::pipeline_cache_key(info)?);
        let data = std::fs::read(&file).ok().and_then(unsealed);
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: None,
            data: data.as_deref(),
            fallback: true,
        };
        // SAFETY: the file was written by `save` below from what the same driver gave out, and is
        // named after it; its checksum was right, so it is whole, and wgpu checks that it is of this
        // device and version of the driver.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        // A file that the driver does not know leaves the cache empty.
        let known = cache.get_data().filter(|_| data.is_some());
        Some(Disk {
            cache,
            file,
            saved: Mutex::new(known.map_or(0, |d| d.len())),
        })
    }

    /// What pipelines are made with.
    pub fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file anew when there is more than before. Failing is no fault: the next start
    /// compiles again.
    pub fn save(&self) {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(data) = self.cache.get_data().filter(|data| data.len() != *saved) else {
            return;
        };
        // Another process may read or write at the same time: whole files only.
        let own = self.file.with_extension(std::process::id().to_string());
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&own, sealed(&data)))
            .and_then(|()| std::fs::rename(&own, &self.file));
        match written {
            Ok(()) => *saved = data.len(),
            Err(_) => drop(std::fs::remove_file(&own)),
        }
    }
}

/// The data behind a checksum.
fn sealed(data: &[u8]) -> Vec<u8> {
    [&checksum(data).to_le_bytes(), data].concat()
}

/// What was sealed, if it is whole.
fn unsealed(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let sum = *file.first_chunk::<8>()?;
    file.drain(..8);
    (u64::from_le_bytes(sum) == checksum(&file)).then_some(file)
}

/// 64-bit FNV-1a: tells a file that was cut or overwritten from a whole one.
fn checksum(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Folder of what can be made again, by the system's convention.
pub fn user_cache() -> Option<PathBuf> {
    let variable = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let base = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    base.map(|base| base.join("acestep"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_are_taken() {
        let data = b"pipelines".to_vec();
        let file = sealed(&data);
        assert_eq!(unsealed(file.clone()), Some(data));
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert_eq!(unsealed(changed), None, "{at}");
            assert_eq!(unsealed(file[..at].to_vec()), None, "{at}");
        }
    }
}
