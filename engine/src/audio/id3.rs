//! Frames of an ID3v2.4 tag (id3.org, "ID3 tag version 2.4.0"): texts in UTF-8.

/// Stands for UTF-8 in front of a text.
const UTF_8: u8 = 3;
/// Where no language is known.
const NO_LANGUAGE: &[u8; 3] = b"und";

/// A frame of plain text, such as `TIT2`. An empty text makes no frame.
pub(super) fn text(to: &mut Vec<u8>, id: &[u8; 4], text: &str) {
    if !text.is_empty() {
        frame(to, id, &[&[UTF_8], text.as_bytes()].concat());
    }
}

/// A frame that has a language and a heading, which is left empty: `COMM` or `USLT`.
pub(super) fn comment(to: &mut Vec<u8>, id: &[u8; 4], text: &str) {
    if !text.is_empty() {
        let parts = [&[UTF_8], &NO_LANGUAGE[..], &[0], text.as_bytes()];
        frame(to, id, &parts.concat());
    }
}

/// A text with a name of our own.
pub(super) fn named(to: &mut Vec<u8>, name: &str, text: &str) {
    if !text.is_empty() {
        let parts = [&[UTF_8], name.as_bytes(), &[0], text.as_bytes()];
        frame(to, b"TXXX", &parts.concat());
    }
}

/// The whole tag; it goes in front of the audio.
pub(super) fn tag(frames: &[u8]) -> Vec<u8> {
    // Version 4, revision 0, no flags.
    let mut tag = b"ID3\x04\x00\x00".to_vec();
    tag.extend(sync_safe(frames.len()));
    tag.extend(frames);
    tag
}

fn frame(to: &mut Vec<u8>, id: &[u8; 4], content: &[u8]) {
    to.extend(id);
    to.extend(sync_safe(content.len()));
    to.extend([0, 0]);
    to.extend(content);
}

/// A number in 7 bits per byte, so that it never looks like the start of a frame of audio.
fn sync_safe(n: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (n >> shift & 0x7F) as u8)
}
