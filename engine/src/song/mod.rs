//! One request to PCM: a linear script over the models, the sampler and the VAE.

pub mod choose;
pub mod codes;
pub mod compose;
pub mod describe;
pub mod encode;
pub mod engine;
pub mod fit;
pub mod language_model;
pub mod latents;
pub mod loaded;
pub mod plan;
pub mod prepare;
pub mod progress;
pub mod render;
pub mod request;
pub mod source;

pub use describe::{DescribeRequest, Description, Facts, Subject};
pub use engine::{Engine, EngineOptions, ModelInfo};
pub use prepare::Prepared;
pub use progress::{NoWatch, Stage, Watch};
pub use request::{
    Composed, Guidance, Metas, Method, Output, Planning, Sampling, Solver, Song, SongItem,
    SongRequest, StageTimes, Wish,
};
