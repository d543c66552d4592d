//! The ACE-Step HTTP API and the `acestep` command line.
//!
//! The library exists so that tests can start a server inside their own process; the binary is
//! [`cli::main`].

pub mod app;
pub mod auth;
pub mod body;
pub mod budget;
pub mod calls;
pub mod catalog;
pub mod chat;
pub mod cli;
pub mod coerce;
pub mod config;
pub mod cors;
pub mod env;
pub mod examples;
pub mod fields;
pub mod files;
pub mod finish;
pub mod http;
pub mod jobs;
pub mod languages;
pub mod lm;
pub mod maker;
pub mod multipart;
pub mod progress;
pub mod queue;
pub mod raw;
pub mod reply;
pub mod resolve;
pub mod routes;
pub mod run;
pub mod seeds;
pub mod slots;
pub mod stall;
pub mod store;
pub mod submit;
pub mod typed;
pub mod verify;
pub mod worker;
