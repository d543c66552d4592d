//! Operation benches.
fn main() {}
