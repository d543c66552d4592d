//! acestep.
fn main() {}
