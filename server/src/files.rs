//! Which paths of a client are followed: results that may be fetched, audio that may be read.

use engine::song::sidecar;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::fs::DirEntry;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// Why a result is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// Outside the folder of results: 403.
    Denied,
    /// Inside, but no file: 404.
    NotFound,
}

/// Where a client gets a result; its path follows, percent-encoded.
const RESULT_URL: &str = "/v1/audio?path=";

/// Everything but letters, digits and `_.-~` is encoded, slashes too.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'_')
    .remove(b'.')
    .remove(b'-')
    .remove(b'~');

/// Where a client gets a file.
pub fn audio_url(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("{RESULT_URL}{}", utf8_percent_encode(&text, ENCODED))
}

/// The path in what [`audio_url`] made; `None` in any other text.
pub fn path_in_url(text: &str) -> Option<String> {
    let encoded = text.strip_prefix(RESULT_URL)?;
    let path = percent_decode_str(encoded).decode_utf8_lossy();
    Some(path.into_owned())
}

/// The real path of a result that a client asks for. `root` is the real path of the folder with
/// results.
pub fn result_file(root: &Path, text: &str) -> Result<PathBuf, Unserved> {
    let path = Path::new(text);
    if text.contains('\0') || !path.is_absolute() {
        return Err(Unserved::Denied);
    }
    let real = real_path(path);
    if !real.starts_with(root) {
        return Err(Unserved::Denied);
    }
    // What is kept beside songs is not for clients.
    let is_kept = real.to_string_lossy().ends_with(sidecar::ENDING);
    if real.is_file() && !is_kept {
        Ok(real)
    } else {
        Err(Unserved::NotFound)
    }
}

/// Removes songs that were written longer than `age` before `now`, and what is kept beside them;
/// how many files it were. Files of other people, which are not named as songs are, stay.
pub fn remove_old(dir: &Path, now: SystemTime, age: Duration) -> usize {
    let Ok(files) = std::fs::read_dir(dir) else {
        return 0;
    };
    let is_old = |file: &DirEntry| {
        let name = file.file_name();
        let stem = name.to_str().and_then(|name| name.split('.').next());
        let written = file.metadata().and_then(|m| m.modified());
        stem.is_some_and(|stem| Uuid::parse_str(stem).is_ok())
            && written.is_ok_and(|at| now.duration_since(at).is_ok_and(|past| past > age))
    };
    let old = files.flatten().filter(is_old);
    old.filter(|file| std::fs::remove_file(file.path()).is_ok())
        .count()
}

/// The path of source audio that a client names, `None` when it names none. `roots` are real
/// paths that may be read; relative paths are taken within `cwd`, a real path. Whether there is
/// such a file is not looked at.
pub fn source_file(
    text: &str,
    roots: &[PathBuf],
    cwd: &Path,
) -> Result<Option<PathBuf>, &'static str> {
    const TRAVERSAL: &str = "path traversal in audio file paths is not allowed";
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.contains('\0') {
        return Err(TRAVERSAL);
    }
    // A result's address is as good as its path.
    let unwrapped = path_in_url(text);
    let path = PathBuf::from(unwrapped.as_deref().unwrap_or(text));
    let real = real_path(&cwd.join(&path));
    if roots.iter().any(|root| real.starts_with(root)) {
        return Ok(Some(real));
    }
    if path.is_absolute() {
        return Err("absolute audio file paths are not allowed");
    }
    let mut depth = 0i32;
    for component in path.components() {
        match component {
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
        if depth < 0 {
            return Err(TRAVERSAL);
        }
    }
    if real.starts_with(cwd) {
        Ok(Some(real))
    } else {
        Err(TRAVERSAL)
    }
}

/// An absolute path with every symlink and `..` resolved as far as the path exists; what does
/// not exist is appended as it is.
fn real_path(path: &Path) -> PathBuf {
    let mut real = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(real.pop()),
            Component::Normal(name) => {
                let next = real.join(name);
                real = match (next.canonicalize(), next.read_link()) {
                    (Ok(known), _) => known,
                    // A link to nowhere counts as the place it names.
                    (Err(_), Ok(target)) => real.join(target),
                    (Err(_), Err(_)) => next,
                };
            }
            _ => {}
        }
    }
    real
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn results() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("api_audio");
        let evil = dir.path().join("api_audio_evil");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::create_dir_all(&evil).unwrap();
        std::fs::write(root.join("a.mp3"), "x").unwrap();
        std::fs::write(sidecar::path_of(&root.join("a.mp3")), "x").unwrap();
        std::fs::write(evil.join("a.mp3"), "x").unwrap();
        symlink(evil.join("a.mp3"), root.join("out.mp3")).unwrap();
        symlink("/nowhere/at/all", root.join("dangling.mp3")).unwrap();
        symlink(root.join("a.mp3"), dir.path().join("in.mp3")).unwrap();
        let ask = |text: &str| result_file(&root, text);
        let r = root.to_str().unwrap();
        assert_eq!(ask(&format!("{r}/a.mp3")), Ok(root.join("a.mp3")));
        assert_eq!(ask(&format!("{r}/sub/../a.mp3")), Ok(root.join("a.mp3")));
        let link_in = dir.path().join("in.mp3");
        assert_eq!(ask(link_in.to_str().unwrap()), Ok(root.join("a.mp3")));
        let kept = format!("{r}/a.mp3.latents.safetensors");
        for missing in [
            format!("{r}/none.mp3"),
            r.to_owned(),
            format!("{r}/sub"),
            kept,
        ] {
            assert_eq!(ask(&missing), Err(Unserved::NotFound), "{missing}");
        }
        for denied in [
            "".to_owned(),
            "a.mp3".into(),
            "api_audio/a.mp3".into(),
            "http://x/a.mp3".into(),
            "/etc/passwd".into(),
            format!("{r}/../api_audio_evil/a.mp3"),
            evil.join("a.mp3").to_str().unwrap().to_owned(),
            format!("{r}/out.mp3"),
            format!("{r}/dangling.mp3"),
            format!("{r}/none/../../x"),
            format!("{r}/a.mp3\0"),
            format!("%2F{r}"),
        ] {
            assert_eq!(ask(&denied), Err(Unserved::Denied), "{denied:?}");
        }
    }

    #[test]
    fn urls_encode_all_but_the_plain_characters() {
        let url = audio_url(Path::new("/tmp/a b/é~x_1-2.mp3"));
        assert_eq!(url, "/v1/audio?path=%2Ftmp%2Fa%20b%2F%C3%A9~x_1-2.mp3");
    }

    #[test]
    fn old_songs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let song = Uuid::new_v4();
        for name in [
            format!("{song}.mp3"),
            format!("{song}.mp3{}", sidecar::ENDING),
            "mine.mp3".into(),
        ] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        assert_eq!(remove_old(dir.path(), now, hour), 0);
        assert_eq!(remove_old(dir.path(), now + 2 * hour, hour), 2);
        assert!(dir.path().join("mine.mp3").exists());
        assert_eq!(remove_old(&dir.path().join("nowhere"), now, hour), 0);
    }

    #[test]
    fn sources() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (root, cwd, other) = (base.join("tmp"), base.join("cwd"), base.join("tmp_evil"));
        for d in [&root, &cwd, &other] {
            std::fs::create_dir_all(d).unwrap();
        }
        symlink(&other, cwd.join("out")).unwrap();
        symlink(&root, cwd.join("in")).unwrap();
        let ask = |text: &str| source_file(text, std::slice::from_ref(&root), &cwd);
        assert_eq!(ask("  "), Ok(None));
        let inside = root.join("x.wav");
        assert_eq!(ask(inside.to_str().unwrap()), Ok(Some(inside.clone())));
        assert_eq!(ask("in/x.wav"), Ok(Some(inside.clone())));
        assert_eq!(ask("../tmp/x.wav"), Ok(Some(inside.clone())));
        let wrapped = audio_url(&inside);
        assert_eq!(ask(&wrapped), Ok(Some(inside)));
        assert_eq!(ask("songs/x.wav"), Ok(Some(cwd.join("songs/x.wav"))));
        assert_eq!(ask("a/../x.wav"), Ok(Some(cwd.join("x.wav"))));
        let evil = other.join("x.wav");
        for absolute in [evil.to_str().unwrap(), "/etc/passwd", "/"] {
            assert_eq!(
                ask(absolute),
                Err("absolute audio file paths are not allowed")
            );
        }
        for traversal in [
            "../x.wav",
            "a/../../x.wav",
            "../tmp_evil/x",
            "out/x.wav",
            "a\0b",
        ] {
            assert_eq!(
                ask(traversal),
                Err("path traversal in audio file paths is not allowed")
            );
        }
    }
}
