//! Shared pieces of the test suite.

pub mod adapter;
pub mod cases;
pub mod client;
pub mod conformance;
pub mod containers;
pub mod demo;
pub mod engines;
pub mod external;
pub mod fake;
pub mod model_cases;
pub mod random;
pub mod reference;
pub mod requests;
pub mod run;
