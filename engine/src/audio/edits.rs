//! The edit list of an MP4 file: what of its sound is meant to be heard. AAC encoders put a block
//! or two of silence in front, and only this list says so.

use std::io::{Read, Seek, SeekFrom};

/// Bytes of the largest index that is looked at; an honest one of ten minutes has a few hundred
/// thousand.
const MAX_INDEX: u64 = 16 << 20;
/// Boxes that are passed on the way to the index.
const MAX_BOXES: usize = 1_000;

/// The part of a track that is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edit {
    /// Start, in ticks of the track.
    start: u64,
    /// Ticks of the track per second.
    scale: u64,
    /// Length, in ticks of the film; 0 for all.
    length: u64,
    /// Ticks of the film per second.
    film_scale: u64,
}

impl Edit {
    /// Samples in front that are not heard, and samples that are heard then.
    pub fn samples(&self, rate: u32) -> (u64, u64) {
        let convert = |ticks: u64, scale: u64| {
            let samples = u128::from(ticks) * u128::from(rate) / u128::from(scale.max(1));
            u64::try_from(samples).unwrap_or(u64::MAX)
        };
        let heard = match self.length {
            0 => u64::MAX,
            length => convert(length, self.film_scale),
        };
        (convert(self.start, self.scale), heard)
    }
}

/// The edit of the first sound track, if the file is MP4 and has one. Leaves the file at its
/// start if that can be done.
pub(super) fn edit_of(file: &mut (impl Read + Seek + ?Sized)) -> Option<Edit> {
    let index = index_of(file);
    file.seek(SeekFrom::Start(0)).ok()?;
    parse(&index?)
}

/// Content of the box `moov`.
fn index_of(file: &mut (impl Read + Seek + ?Sized)) -> Option<Vec<u8>> {
    let mut at = file.seek(SeekFrom::Start(0)).ok()?;
    for number in 0..MAX_BOXES {
        let mut head = [0u8; 16];
        file.read_exact(&mut head[..8]).ok()?;
        if number == 0 && head[4..8] != *b"ftyp" {
            return None;
        }
        let (mut size, mut header) = (u64::from(be32(&head, 0)?), 8);
        if size == 1 {
            file.read_exact(&mut head[8..]).ok()?;
            (size, header) = (be64(&head, 8)?, 16);
        }
        let content = size.checked_sub(header)?;
        if head[4..8] == *b"moov" {
            let mut index = Vec::new();
            file.take(content.min(MAX_INDEX))
                .read_to_end(&mut index)
                .ok()?;
            return Some(index);
        }
        at = file.seek(SeekFrom::Start(at.checked_add(size)?)).ok()?;
    }
    None
}

fn parse(index: &[u8]) -> Option<Edit> {
    let film_scale = scale(child(index, b"mvhd")?)?;
    let sound = boxes(index).find(|(name, track)| {
        let kind = child(track, b"mdia").and_then(|m| child(m, b"hdlr"));
        **name == *b"trak" && kind.and_then(|k| k.get(8..12)) == Some(b"soun")
    });
    let (_, track) = sound?;
    let scale = scale(child(child(track, b"mdia")?, b"mdhd")?)?;
    let list = child(child(track, b"edts")?, b"elst")?;
    let (long, count) = (*list.first()? == 1, be32(list, 4)?);
    let size = if long { 20 } else { 12 };
    let entries = list.get(8..)?.chunks_exact(size).take(count as usize);
    // Entries that start at -1 are pauses.
    let entry = |e: &[u8]| match long {
        true => Some((be64(e, 0)?, be64(e, 8)?)).filter(|e| e.1 != u64::MAX),
        false => Some((u64::from(be32(e, 0)?), u64::from(be32(e, 4)?)))
            .filter(|e| e.1 != u64::from(u32::MAX)),
    };
    let (length, start) = entries.filter_map(entry).next()?;
    Some(Edit {
        start,
        scale,
        length,
        film_scale,
    })
}

/// Ticks per second that a header states.
fn scale(header: &[u8]) -> Option<u64> {
    let at = if *header.first()? == 1 { 20 } else { 12 };
    be32(header, at).filter(|s| *s > 0).map(u64::from)
}

/// Name and content of the boxes within a box.
fn boxes(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let size = be32(rest, 0)? as usize;
        let name = rest.get(4..8)?.try_into().ok()?;
        let content = rest.get(8..size)?;
        rest = &rest[size..];
        Some((name, content))
    })
}

fn child<'a>(parent: &'a [u8], name: &[u8; 4]) -> Option<&'a [u8]> {
    boxes(parent).find(|(n, _)| *n == name).map(|(_, b)| b)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(field.try_into().ok()?))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at.checked_add(4)?)?))
}
