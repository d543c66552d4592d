//! One request to PCM: a linear script over the models, the sampler and the VAE.

pub mod choose;
pub mod codes;
pub mod compose;
pub mod describe;
pub mod encode;
pub mod engine;
pub mod fit;
pub mod fit_planner;
pub mod language_model;
pub mod latents;
pub mod loaded;
pub mod lyrics;
mod material;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod reload;
pub mod render;
pub mod request;
pub mod sidecar;
pub mod source;
pub mod task;

pub use describe::{DescribeRequest, Description, Facts, Subject};
pub use engine::{Engine, EngineOptions, ModelInfo};
pub use prepare::Prepared;
pub use progress::{NoWatch, Stage, Watch};
pub use request::{
    ChunkMask, Composed, Freedom, Guidance, Metas, Method, Output, OwnSong, Planning, Recording,
    Repainting, Retake, Sampling, Solver, Song, SongItem, SongRequest, StageTimes, Wish,
};
pub use task::{Task, Tracks};
