//! models.

pub mod config;
mod fields;
