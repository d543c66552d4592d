//! Audio codes on the command line: as text, or in a file of such text.

use engine::text::{parse_codes, print_codes};
use engine::{Error, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// More than the text of the codes of the longest song takes; no file is read further.
const FILE_LIMIT: u64 = 1 << 20;

/// How codes are written, for refusals.
const FORM: &str = "<|audio_code_N|>, or numbers with commas between them";

/// The codes that `argument` names. `from` is the flag or argument it was given for.
pub fn read(from: &str, argument: &str) -> Result<Vec<u32>> {
    let file = Path::new(argument);
    // A text of many codes is longer than any path, which is not an error here.
    let (codes, what) = match file.is_file() {
        true => (of_file(from, file)?, "a file without audio codes"),
        false => (of_text(from, argument)?, "neither a file nor audio codes"),
    };
    codes.ok_or_else(|| {
        Error::Request(format!(
            "{from}: {:?} is {what}; these are written {FORM}",
            shorten(argument)
        ))
    })
}

/// The codes in a file; `None` when it holds something else.
pub fn of_file(from: &str, file: &Path) -> Result<Option<Vec<u32>>> {
    match read_text(from, file)? {
        Some(text) => of_text(from, &text),
        None => Ok(None),
    }
}

/// The codes of a text; `None` when there are none in it.
fn of_text(from: &str, text: &str) -> Result<Option<Vec<u32>>> {
    let parsed = parse_codes(text);
    if parsed.clamped > 0 {
        return Err(Error::Request(format!(
            "{from}: {} of the {} audio codes are above 63999, the largest there is",
            parsed.clamped,
            parsed.codes.len()
        )));
    }
    Ok(Some(parsed.codes).filter(|codes| !codes.is_empty()))
}

/// The text of a file; `None` when it is not text, or far too long to be one of codes.
fn read_text(from: &str, file: &Path) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|f| f.take(FILE_LIMIT + 1).read_to_end(&mut bytes));
    read.map_err(|e| Error::Missing(format!("{from} {} cannot be read ({e})", file.display())))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Ok(None);
    }
    Ok(String::from_utf8(bytes).ok())
}

/// Writes codes so that they can be read again.
pub fn write(file: &Path, codes: &[u32]) -> Result<()> {
    let written = File::create(file).and_then(|mut f| writeln!(f, "{}", print_codes(codes)));
    written.map_err(|e| {
        Error::Output(format!(
            "--codes-out {} cannot be written ({e}); choose another file",
            file.display()
        ))
    })
}

/// The beginning of what a user wrote.
fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_from_texts_and_files() {
        assert_eq!(read("--codes", "1, 2,63999").unwrap(), [1, 2, 63999]);
        let text = print_codes(&(0..3000).collect::<Vec<u32>>());
        assert_eq!(read("--codes", &text).unwrap().len(), 3000);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("codes.txt");
        write(&file, &[5, 0, 7]).unwrap();
        assert_eq!(read("--codes", file.to_str().unwrap()).unwrap(), [5, 0, 7]);
    }

    #[test]
    fn what_holds_no_codes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (words, bytes) = (file("a", b"la la"), file("b", &[0xff; 9]));
        let long = file("c", &vec![b'1'; FILE_LIMIT as usize + 1]);
        for (argument, why) in [
            ("nowhere.txt", "neither a file nor"),
            ("", "neither a file nor"),
            ("64000", "1 of the 1 audio codes"),
            (words.as_str(), "a file without audio codes"),
            (bytes.as_str(), "a file without audio codes"),
            (long.as_str(), "a file without audio codes"),
        ] {
            let error = read("--codes", argument).unwrap_err();
            assert!(matches!(error, Error::Request(_)), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
