//! Schedules, noise, guidance, solvers: everything between a condition and final latents.

pub mod denoise;
pub mod logits;
pub mod noise;
pub mod repaint;
pub mod schedule;
pub mod update;
pub mod wavelet;

pub use noise::{NoiseKind, Stream};
