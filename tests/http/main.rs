//! The HTTP API from outside: bytes over sockets, against a server with a fake engine, and once
//! against the real engine on the tiny tree. One module per part of the contract.

mod audio;
mod auth;
mod cancel;
mod chat;
mod clients;
mod cors;
mod describe;
mod engine;
mod examples;
mod hostile;
mod init;
mod lifecycle;
mod lm_policy;
mod multipart;
mod planned;
mod reinitialize;
mod release;
mod restart;
mod results;
mod transport;
