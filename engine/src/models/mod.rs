//! Programs of each network, written once. Nothing here runs or allocates.

pub mod audio_tokens;
pub mod condition;
pub mod config;
pub mod dit;
mod fields;
pub mod language_model;
pub mod layer;
pub mod layout;
pub mod text_encoder;
pub mod vae;
pub mod vae_encoder;
