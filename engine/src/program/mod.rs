//! Programs: flat lists of operations with shapes checked while they are written.
//!
//! Model code does not compute, it *writes a program*: ordinary Rust that appends steps to a
//! [`Builder`]. Memory is planned once ([`plan`]), operations that a backend has no kernel for
//! are replaced by their definition ([`lower`]), and then any backend runs the list.
//!
//! Conventions, everywhere: values are contiguous, row-major, channels-last; shape letters are
//! `B` batch, `T` query time, `S` key time, `C` channels, `H` heads, `G` key/value heads, `D`
//! head size, `N` output features, `K` input features, `V` vocabulary.

pub mod build;
pub mod define;
pub mod lower;
pub mod op;
pub mod plan;
mod print;
mod shape;

pub use build::{Builder, Program, Step, Val, ValInfo, ValKind, WeightDecl, WeightForm};
pub use lower::lower;
pub use op::{DType, Dcw, DcwMode, Mask, Math, Op, Scalar};
pub use plan::{Plan, plan};
