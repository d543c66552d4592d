//! The house rules, as a test.

use std::path::Path;

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let faults = tools::tidy::check(&root).expect("the sources can be read");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
