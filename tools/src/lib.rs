//! Developer verbs, as a library so that the test suite can call them.

pub mod tidy;
