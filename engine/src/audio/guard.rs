//! A file that ends early when it brings nothing: readers of formats search through whatever they do
//! not understand, and a file may be gigabytes of that.

use std::io::{Error, Read, Result, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use symphonia::core::io::MediaSource;

/// Bytes that may be read without a sample coming of them: pictures in front of a song, and much
/// more than that.
const BARREN: u64 = 64 << 20;
/// What a jump counts as, so that there is no end of jumping either.
const JUMP: u64 = 4 << 10;

/// A source that counts.
pub(super) struct Guard {
    source: Box<dyn MediaSource>,
    spent: Spent,
}

/// Bytes that were read since the last sample.
#[derive(Clone, Default)]
pub(super) struct Spent(Arc<AtomicU64>);

impl Spent {
    /// There was a sample.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn add(&self, bytes: u64) -> Result<()> {
        match self.0.fetch_add(bytes, Ordering::Relaxed) {
            before if before < BARREN => Ok(()),
            _ => Err(Error::other(format!(
                "{} MiB without any audio",
                BARREN >> 20
            ))),
        }
    }
}

impl Guard {
    /// Guards a source; whoever decodes what it brings clears the count.
    pub(super) fn new(source: Box<dyn MediaSource>) -> (Self, Spent) {
        let spent = Spent::default();
        let guard = Guard {
            source,
            spent: spent.clone(),
        };
        (guard, spent)
    }
}

impl Read for Guard {
    fn read(&mut self, to: &mut [u8]) -> Result<usize> {
        let read = self.source.read(to)?;
        self.spent.add(read as u64)?;
        Ok(read)
    }
}

impl Seek for Guard {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.spent.add(JUMP)?;
        self.source.seek(to)
    }
}

impl MediaSource for Guard {
    fn is_seekable(&self) -> bool {
        self.source.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.source.byte_len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_count_ends_a_source_unless_it_is_cleared() {
        let (mut guard, spent) = Guard::new(Box::new(Cursor::new(vec![0; 1 << 20])));
        let mut block = vec![0; 1 << 20];
        let mut round = || {
            guard.seek(SeekFrom::Start(0))?;
            guard.read(&mut block)
        };
        for _ in 0..200 {
            assert_eq!(round().unwrap(), 1 << 20);
            spent.clear();
        }
        let rounds = (0..200).take_while(|_| round().is_ok()).count();
        assert!((60..65).contains(&rounds), "{rounds}");
        assert!(round().unwrap_err().to_string().contains("64 MiB"));
    }
}
