//! The ACE-Step HTTP API and the `acestep` command line.
//!
//! The library exists so that tests can start a server inside their own process; the binary is
//! [`cli::main`].

pub mod cli;
pub mod coerce;
pub mod fields;
pub mod languages;
pub mod raw;
pub mod resolve;
pub mod seeds;
