//! Programs and recordings by other people, as Debian packages them. `tools/test.sh` installs them;
//! where one is missing a test says so and is skipped, but in continuous integration (`CI=true`)
//! it fails.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of `sound-theme-freedesktop`: short sounds in Ogg Vorbis.
const THEME: &str = "/usr/share/sounds/freedesktop/stereo";
/// The folder of `rrootage-data`: a game's music in Ogg Vorbis, its sounds in WAV.
const GAME: &str = "/usr/share/games/rrootage/sounds";

/// Says that a test is skipped for want of `what`, past the capture of the test harness.
///
/// # Panics
/// In continuous integration, where everything must be there.
pub fn skip(what: &str) {
    let ci = std::env::var("CI").is_ok_and(|v| v == "true" || v == "1");
    assert!(
        !ci,
        "{what} is missing: run tools/test.sh, which installs it"
    );
    // A closed stderr is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: no {what}");
}

/// Whether all these programs are there; see [`skip`].
pub fn has_programs(names: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let missing = names
        .iter()
        .find(|name| !std::env::split_paths(&paths).any(|dir| dir.join(name).is_file()));
    missing.inspect(|name| skip(name)).is_none()
}

/// What a program wrote to stdout and stderr.
///
/// # Panics
/// When it cannot be started or fails; with what it said.
pub fn run(program: &str, args: &[&str]) -> (Vec<u8>, String) {
    let done = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{program} {args:?}: {said}");
    (done.stdout, said)
}

/// A path as an argument.
///
/// # Panics
/// When it is no text; those of tests are.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a text")
}

/// Samples of a file as `ffmpeg` decodes it: interleaved stereo at `rate`.
///
/// # Panics
/// When it does not.
pub fn decoded(path: &Path, rate: u32) -> Vec<f32> {
    let rate = rate.to_string();
    let file = text(path);
    let args = [
        "-v", "error", "-i", file, "-f", "f32le", "-ac", "2", "-ar", &rate, "-",
    ];
    let (bytes, said) = run("ffmpeg", &args);
    assert_eq!(said, "", "{file}");
    let words = bytes.chunks_exact(4);
    words
        .map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]]))
        .collect()
}

/// A recording of a package: a game's music, which is long, or a short sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Music of a game.
    Music,
    /// Sound of a desktop theme.
    Sound,
}

impl Recorded {
    /// Its file, if the package is there; see [`skip`].
    pub fn file(self) -> Option<PathBuf> {
        let (folder, name, package) = match self {
            Recorded::Music => (GAME, "stg_b.ogg", "rrootage-data"),
            Recorded::Sound => (THEME, "phone-incoming-call.oga", "sound-theme-freedesktop"),
        };
        let file = Path::new(folder).join(name);
        if !file.is_file() {
            skip(package);
            return None;
        }
        Some(file)
    }
}
