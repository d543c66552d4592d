//! Recordings as music to work on: a file to PCM, to latents, to audio codes.

use super::Watch;
use super::engine::Engine;
use super::loaded::LoadedDit;
use super::request::{OwnSong, Recording, SongRequest, StageTimes};
use super::sidecar;
use super::task::{SourceUse, Task};
use crate::audio::{Pcm, read};
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Reads a file as [`Engine::read_recording`] will, and drops it: what is wrong with it is known
/// before its turn has come.
///
/// # Errors
/// Those of [`Engine::read_recording`].
pub fn check_recording(path: &Path, watch: &dyn Watch) -> Result<()> {
    samples(&Recording::File(path.to_path_buf()), watch).map(drop)
}

/// Samples of a recording: interleaved stereo at 48 kHz.
fn samples(recording: &Recording, watch: &dyn Watch) -> Result<Arc<Vec<f32>>> {
    let (samples, name) = match recording {
        Recording::Samples(samples) => (samples.clone(), "the recording".to_owned()),
        Recording::Own(song) => (song.samples.clone(), "the recording".to_owned()),
        Recording::File(path) => {
            let samples = read::read(path, read::MAX_SECONDS, watch)?;
            (Arc::new(samples), path.display().to_string())
        }
    };
    let pcm = Pcm {
        samples: &samples,
        rate: read::RATE,
    };
    if read::is_silent(&pcm) {
        return Err(Error::Request(format!(
            "{name} is silent; send a recording with music in it"
        )));
    }
    Ok(samples)
}

impl Engine {
    /// Samples of a recording: interleaved stereo at 48 kHz, at most [`read::MAX_SECONDS`].
    ///
    /// # Errors
    /// [`Error::Request`] for a recording that cannot be read or is silent; [`Error::Cancelled`].
    pub fn read_recording(
        &self,
        recording: &Recording,
        watch: &dyn Watch,
    ) -> Result<Arc<Vec<f32>>> {
        samples(recording, watch)
    }

    /// Audio codes of a request's source: those that it brings, else those of its recording.
    ///
    /// # Errors
    /// [`Error::Request`] when it has neither, and those of [`Engine::codes_of_audio`].
    pub fn codes_of(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Vec<u32>> {
        if let Some(codes) = request.codes.first() {
            return Ok(codes.clone());
        }
        let Some(recording) = &request.source else {
            return Err(Error::Request(
                "an analysis requires source audio: name a file with src_audio_path, or upload \
                 one as src_audio"
                    .into(),
            ));
        };
        self.codes_of_recording(&request.model, recording, watch)
    }

    /// Latents `(T, C)` of interleaved `pcm`, 25 frames per second. The autoencoder must be loaded
    /// ([`Engine::load`]).
    ///
    /// # Errors
    /// [`Error::Request`] for a recording that is shorter than a frame; [`Error::Missing`] when
    /// the checkpoint has no encoder.
    pub fn encode(&self, pcm: &[f32], watch: &dyn Watch) -> Result<Vec<f32>> {
        let encoder = self.vae()?.encoder(self.backend(), self.math())?;
        encoder.latents(pcm, watch)
    }

    /// Audio codes of a file, five per second, as the diffusion model `model` understands them;
    /// loads what that needs.
    ///
    /// # Errors
    /// Those of [`Engine::load`], [`Engine::read_recording`] and [`Engine::encode`].
    pub fn codes_of_audio(
        &mut self,
        model: &str,
        path: &Path,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        self.codes_of_recording(model, &Recording::File(path.to_path_buf()), watch)
    }

    fn codes_of_recording(
        &mut self,
        model: &str,
        recording: &Recording,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        self.load(model, watch)?;
        let (dit, _) = self.dit(model)?;
        let own = match recording {
            Recording::File(path) => self.own_song(dit, path, watch)?.ok().flatten(),
            _ => None,
        };
        let latents = match own {
            Some(song) => song.kept.latents.clone(),
            None => self.encode(&self.read_recording(recording, watch)?, watch)?,
        };
        dit.encode_codes(self.backend(), &latents)
    }

    /// The song of our own that `path` holds, with the latents that were kept of it; `Ok(None)`
    /// where none were, `Err` with the reason where those that were must not be used.
    fn own_song(
        &self,
        dit: &LoadedDit,
        path: &Path,
        watch: &dyn Watch,
    ) -> Result<std::result::Result<Option<OwnSong>, String>> {
        let channels = dit.config.audio_acoustic_hidden_dim;
        let kept = match sidecar::read(path, channels, &self.vae()?.fingerprint()) {
            Ok(Some(kept)) => kept,
            Ok(None) => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        };
        let samples = samples(&Recording::File(path.to_path_buf()), watch)?;
        Ok(Ok(Some(OwnSong { samples, kept })))
    }

    /// Where the source of `request` is a song of our own whose latents were kept, puts it in its
    /// place and returns a sentence on it. Upstream: `_load_cached_repaint_source`.
    ///
    /// # Errors
    /// Those of [`Engine::read_recording`].
    pub(super) fn adopt_own_song(
        &self,
        request: &mut SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Vec<String>> {
        let Some(Recording::File(path)) = &request.source else {
            return Ok(Vec::new());
        };
        if !request.works_on_recording() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let (dit, _) = self.dit(&request.model)?;
        let found = self.own_song(dit, path, watch)?;
        times.read_s += start.elapsed().as_secs_f64();
        let mut notes = Vec::new();
        match found {
            Ok(None) => {}
            Err(why) => notes.push(format!(
                "the latents kept beside the source were not used: {why}; it was encoded"
            )),
            Ok(Some(song)) => {
                notes.push("the latents kept beside the source were used".into());
                notes.extend(avoid_seed(request.task, &mut request.seeds, song.kept.seed));
                request.source = Some(Recording::Own(Arc::new(song)));
            }
        }
        Ok(notes)
    }
}

/// Where a part of a song is made anew, the song's own noise would lead to much the same again:
/// an item with that seed gets another, found from it so that the request stays repeatable
/// (upstream draws one: `_resample_matching_source_seeds`).
fn avoid_seed(task: Task, seeds: &mut [u64], taken: u64) -> Option<String> {
    if task.row().source != SourceUse::Hole || !seeds.contains(&taken) {
        return None;
    }
    let mut next = taken;
    for i in 0..seeds.len() {
        if seeds[i] != taken {
            continue;
        }
        while seeds.contains(&next) {
            // A full-period step of the 32-bit seeds that clients know.
            next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) & u64::from(u32::MAX);
        }
        seeds[i] = next;
    }
    Some(format!(
        "seed {taken} is that of the source: {next} was used instead"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_seed_is_avoided_where_a_part_is_made_anew() {
        let mut seeds = [5, 6, 5];
        assert_eq!(avoid_seed(Task::Cover, &mut seeds, 5), None);
        assert_eq!(avoid_seed(Task::Repaint, &mut seeds, 7), None);
        assert_eq!(seeds, [5, 6, 5]);
        let note = avoid_seed(Task::Repaint, &mut seeds, 5);
        assert!(note.is_some_and(|note| note.contains("seed 5")));
        let [a, b, c] = seeds;
        assert!(b == 6 && ![5, 6, c].contains(&a) && ![5, 6].contains(&c));
        assert!(a <= u64::from(u32::MAX));
    }
}
