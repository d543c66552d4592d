//! Checkpoint files to weights on a device: mapping, checking, folding; and the trees the
//! command line writes (demonstration, full-size random).
//!
//! Files are mapped and never copied whole. Everything read from them is bounds-checked before
//! use, and a file that cannot be trusted is refused with its name, the place and a remedy.

mod bpe;
pub mod checkpoint;
pub mod demo;
mod fold;
mod init;
pub mod inspect;
mod names;
pub mod published;
pub mod random;
pub mod store;
pub mod torch;
pub mod tree;
mod write;

pub use checkpoint::{Checkpoint, Tensor};
pub use store::WeightStore;
pub use torch::Silence;
pub use tree::Checkpoints;
