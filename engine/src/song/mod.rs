//! One request to PCM: a linear script over the models, the sampler and the VAE.

pub mod progress;
pub mod request;

pub use progress::{NoWatch, Stage, Watch};
pub use request::{
    Guidance, Metas, Method, Output, Sampling, Solver, Song, SongItem, SongRequest, StageTimes,
};
