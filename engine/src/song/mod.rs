//! One request to PCM: a linear script over the models, the sampler and the VAE.

pub mod encode;
pub mod engine;
pub mod fit;
pub mod language_model;
pub mod loaded;
pub mod plan;
pub mod progress;
pub mod render;
pub mod request;

pub use engine::{Engine, EngineOptions, ModelInfo, Prepared};
pub use progress::{NoWatch, Stage, Watch};
pub use request::{
    Guidance, Metas, Method, Output, Sampling, Solver, Song, SongItem, SongRequest, StageTimes,
};
