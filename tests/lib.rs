//! Shared pieces of the test suite.

pub mod cases;
pub mod model_cases;
pub mod random;
pub mod reference;
pub mod run;
