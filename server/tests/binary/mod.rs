//! Runs the binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program in a directory, with nothing of the environment.
pub fn acestep(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_acestep"));
    command.current_dir(dir).env_clear().env("RUST_LOG", "warn");
    command
}

/// Runs it to its end.
pub fn run(dir: &Path, args: &[&str]) -> Output {
    acestep(dir)
        .args(args)
        .output()
        .expect("the program starts")
}

/// What it said on stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory with a demonstration tree in it.
pub fn with_demo() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("checkpoints");
    let made = run(dir.path(), &["checkpoint", "demo", "--out", "checkpoints"]);
    assert!(made.status.success(), "{}", stderr(&made));
    (dir, tree)
}
