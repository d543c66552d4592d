//! ACE-Step 1.5 inference.
//!
//! Rooms, from the bottom up:
//!
//! * [`program`]: operations, shapes, programs, lowering, memory planning. Knows no model, no
//!   device, no file.
//! * [`backend`]: the trait a device implements, and the CPU backend, which runs everywhere and
//!   is the oracle for the others.
//! * [`weights`]: checkpoint files to bytes on a device: mapping, checking, folding.
//! * [`models`]: writes the programs of each network. Runs nothing.
//! * [`text`]: tokens and prompts.
//! * [`sample`]: schedules, noise, guidance, solvers.
//! * [`audio`]: PCM to files, levels.
//! * [`song`]: one request to PCM.

pub mod audio;
pub mod backend;
pub mod error;
pub mod models;
pub mod program;
pub mod sample;
pub mod song;
pub mod text;
pub mod weights;

pub use error::{Error, Result};
