//! Shared pieces of the test suite.

pub mod cases;
pub mod random;
pub mod reference;
pub mod run;
