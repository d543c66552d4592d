//! The CPU backend.

mod level;
pub mod pool;

pub use level::Level;
