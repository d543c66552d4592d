//! The house rules that a machine can check: file and function sizes, imports between rooms,
//! strings that do not belong into a repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Longest source file.
const FILE_LINES: usize = 600;
/// Longest function, braces included.
const FUNCTION_LINES: usize = 80;
/// Tables are exempt from length.
const TABLES: [&str; 1] = ["server/src/fields.rs"];

/// Top-level folders with sources.
const FOLDERS: [&str; 7] = [
    "engine", "kernels", "shaders", "server", "tools", "tests", "benches",
];

/// Rooms of the engine, and which other rooms each may name. Every room may use `error`.
const ROOMS: [(&str, &[&str]); 8] = [
    ("program", &[]),
    ("backend", &["program"]),
    ("weights", &["program", "backend", "models"]),
    ("models", &["program"]),
    ("text", &["song"]),
    ("sample", &["program", "backend", "models", "song"]),
    ("audio", &["song"]),
    (
        "song",
        &[
            "program", "backend", "weights", "models", "text", "sample", "audio",
        ],
    ),
];

/// Checks every source file below `root`; returns the faults, one sentence each.
pub fn check(root: &Path) -> io::Result<Vec<String>> {
    let mut faults = Vec::new();
    for folder in FOLDERS {
        let mut files = Vec::new();
        sources(&root.join(folder), &mut files)?;
        files.sort();
        for path in files {
            let text = fs::read_to_string(&path)?;
            let name = path
                .strip_prefix(root)
                .unwrap_or(&path)
                .to_string_lossy()
                .replace('\\', "/");
            check_file(&name, &text, &mut faults);
        }
    }
    links(root, &mut faults)?;
    Ok(faults)
}

/// Relative links of the README lead somewhere.
fn links(root: &Path, faults: &mut Vec<String>) -> io::Result<()> {
    let text = fs::read_to_string(root.join("README.md"))?;
    for part in text.split("](").skip(1) {
        let target = part.split(')').next().unwrap_or("");
        if !target.contains("://") && !root.join(target).exists() {
            faults.push(format!("README.md: {target} does not exist"));
        }
    }
    Ok(())
}

fn sources(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                sources(&path, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|e| ["rs", "wgsl", "cu"].iter().any(|x| e == *x))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// Checks one file. `name` is its path from the root.
pub fn check_file(name: &str, text: &str, faults: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE_LINES && !TABLES.contains(&name) {
        faults.push(format!(
            "{name}: {} lines, at most {FILE_LINES}",
            lines.len()
        ));
    }
    if name.ends_with(".rs") {
        if !text.starts_with("//!") && !text.starts_with("#!") {
            faults.push(format!("{name}: does not open with what it is for"));
        }
        functions(name, &lines, faults);
        rooms(name, &lines, faults);
    }
    for (i, line) in lines.iter().enumerate() {
        for word in strays() {
            if line.contains(&word) {
                faults.push(format!("{name}:{}: {word:?} does not belong here", i + 1));
            }
        }
    }
}

/// Strings that speak of a machine or of unfinished work. Put together here, so that this file
/// does not contain them.
fn strays() -> [String; 5] {
    [
        ["/wo", "rk/"].concat(),
        ["/ro", "ot/"].concat(),
        ["tod", "o!("].concat(),
        ["unimpl", "emented!("].concat(),
        ["#[ign", "ore"].concat(),
    ]
}

/// Functions as rustfmt lays them out: from the line with `fn` to the closing brace of the same
/// indentation.
fn functions(name: &str, lines: &[&str], faults: &mut Vec<String>) {
    for (i, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let words = [
            "pub ",
            "pub(crate) ",
            "pub(super) ",
            "const ",
            "async ",
            "unsafe ",
        ];
        let mut rest = code;
        while let Some(w) = words.iter().find(|w| rest.starts_with(**w)) {
            rest = &rest[w.len()..];
        }
        let Some(signature) = rest.strip_prefix("fn ") else {
            continue;
        };
        let close = format!("{}}}", " ".repeat(indent));
        let length = lines[i..]
            .iter()
            .position(|l| *l == close)
            .map_or(0, |n| n + 1);
        if length > FUNCTION_LINES && !code.ends_with("{}") && !one_line(line) {
            let end = signature.find(['(', '<']).unwrap_or(signature.len());
            faults.push(format!(
                "{name}:{}: fn {} has {length} lines, at most {FUNCTION_LINES}",
                i + 1,
                &signature[..end]
            ));
        }
    }
}

/// Whether a function's body ends on its first line (trait methods, empty bodies).
fn one_line(line: &str) -> bool {
    line.trim_end().ends_with(';') || line.trim_end().ends_with('}')
}

fn rooms(name: &str, lines: &[&str], faults: &mut Vec<String>) {
    let Some(inside) = name.strip_prefix("engine/src/") else {
        return;
    };
    let Some((room, _)) = inside.split_once('/') else {
        return;
    };
    let Some((_, allowed)) = ROOMS.iter().find(|(r, _)| *r == room) else {
        faults.push(format!("{name}: {room} is not a room of the engine"));
        return;
    };
    // A room's tests may drive it with whatever they need.
    let tests = lines.iter().position(|l| *l == "#[cfg(test)]");
    for (i, line) in lines[..tests.unwrap_or(lines.len())].iter().enumerate() {
        let code = line.split("//").next().unwrap_or("");
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let used = &rest[..end];
            let known = ROOMS.iter().any(|(r, _)| *r == used);
            if known && used != room && !allowed.contains(&used) {
                faults.push(format!("{name}:{}: {room} must not use {used}", i + 1));
            }
        }
        for vendor in ["cudarc", "wgpu", "hyper", "tokio"] {
            if code.contains(&format!("use {vendor}")) {
                faults.push(format!(
                    "{name}:{}: the engine must not use {vendor}",
                    i + 1
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        check_file(name, text, &mut out);
        out
    }

    #[test]
    fn a_long_file_and_a_long_function_are_found() {
        let long = format!("//! x\n{}", "// line\n".repeat(FILE_LINES));
        assert_eq!(faults("engine/src/error.rs", &long).len(), 1);
        let body = "    let x = 1;\n".repeat(FUNCTION_LINES);
        let text = format!("//! x\npub fn f() {{\n{body}}}\n");
        let found = faults("engine/src/error.rs", &text);
        assert!(found[0].contains("fn f has 82 lines"), "{found:?}");
        assert!(faults("a.rs", "//! x\nfn f() {\n}\n").is_empty());
    }

    #[test]
    fn a_room_may_only_look_down() {
        let up = "//! x\nuse crate::song::Watch;\n";
        assert_eq!(faults("engine/src/program/op.rs", up).len(), 1);
        assert!(faults("engine/src/sample/denoise.rs", up).is_empty());
        let vendor = "//! x\nuse hyper::Request;\n";
        assert_eq!(faults("engine/src/song/engine.rs", vendor).len(), 1);
    }

    #[test]
    fn unfinished_work_is_found() {
        let text = format!("//! x\nfn f() {{ {} }}\n", strays()[2]);
        assert_eq!(faults("server/src/lib.rs", &text).len(), 1);
    }
}
