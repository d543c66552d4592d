//! An engine over the demonstration tree, and recordings for it.

use crate::engines::on_processor;
use crate::random::Random;
use crate::requests::plain_sampling;
use engine::audio::CHANNELS;
use engine::song::sidecar::Kept;
use engine::song::{
    Engine, NoWatch, Output, OwnSong, Recording, SongRequest, StageTimes, Task, Tracks,
};
use std::path::Path;
use std::sync::Arc;

/// Samples of a channel in a second.
pub const RATE: usize = 48_000;
/// Samples of a channel in a latent frame, and numbers in one.
const HOP: usize = 1920;
const WIDTH: usize = 64;
/// The model that the requests are for.
pub const MODEL: &str = "acestep-v15-turbo";

/// An engine over a demonstration tree, which is written into `dir` and goes with it.
pub fn engine(dir: &Path) -> Engine {
    let tree = dir.join("demo");
    engine::weights::demo::demo(&tree).expect("written");
    on_processor(&tree).expect("the tree opens")
}

/// A quiet chord of `seconds`, different on both sides.
pub fn chord(seconds: f64) -> Arc<Vec<f32>> {
    let samples = (seconds * RATE as f64) as usize;
    let tone = |i: usize, hz: f32| (i as f32 / RATE as f32 * hz * std::f32::consts::TAU).sin();
    let frame = |i: usize| {
        [
            0.2 * tone(i, 220.0) + 0.1 * tone(i, 330.0),
            0.2 * tone(i, 275.0),
        ]
    };
    Arc::new((0..samples).flat_map(frame).collect())
}

/// A recording of these samples with latents of its own, so that it is not encoded. The encoder
/// is all that is slow about the demonstration tree: it cannot be narrower than twice the latents,
/// at 48 kHz.
pub fn known(samples: &Arc<Vec<f32>>) -> Recording {
    let mut random = Random::named("latents");
    let frames = samples.len() / CHANNELS / HOP;
    Recording::Own(Arc::new(OwnSong {
        samples: samples.clone(),
        kept: Kept {
            latents: (0..frames * WIDTH).map(|_| random.normal()).collect(),
            seed: 1,
            gain: 1.0,
        },
    }))
}

/// A task on a recording, in two steps and with the level as it comes, so that what is kept of
/// the recording can be compared sample by sample.
pub fn request(task: Task, source: Recording) -> SongRequest {
    SongRequest {
        caption: "upbeat pop".into(),
        task,
        instruction: (task.row().instruction)(&Tracks::default()),
        source: Some(source),
        output: Output {
            normalize_db: None,
            ..Output::default()
        },
        ..SongRequest::new(MODEL, vec![5], plain_sampling(2))
    }
}

/// Latents of the songs that are asked for, one after the other, and the frames of each; nothing
/// is decoded.
pub fn latents(engine: &mut Engine, request: &SongRequest) -> (Vec<f32>, usize) {
    engine.load(&request.model, &NoWatch).expect("it loads");
    let times = &mut StageTimes::default();
    let prepared = engine.prepare(request, times, &NoWatch).expect("prepared");
    let latents = engine.diffuse(request, &prepared, times, &NoWatch);
    (latents.expect("latents"), prepared.frames)
}
