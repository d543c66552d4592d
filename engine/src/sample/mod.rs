//! Schedules, noise, guidance, solvers: everything between a condition and final latents.

pub mod denoise;
pub mod repaint;
pub mod update;
pub mod wavelet;
