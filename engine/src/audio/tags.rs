//! What a file says about its song: ID3v2.4 for MP3 and AAC, Vorbis comments for FLAC and Opus,
//! an INFO list for WAV.

use super::id3;

/// Facts on a song.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// What players show.
    pub title: String,
    /// Description that the song was made from.
    pub prompt: String,
    /// Its lyrics.
    pub lyrics: String,
    /// Seed of its noise, with which it can be made again.
    pub seed: u64,
    /// Name of the diffusion model.
    pub model: String,
}

/// Characters of a title.
const TITLE: usize = 80;
/// What wrote the file.
const VENDOR: &str = concat!("acestep ", env!("CARGO_PKG_VERSION"));

impl Tags {
    /// Tags whose title is the prompt's beginning.
    pub fn new(prompt: &str, lyrics: &str, seed: u64, model: &str) -> Self {
        let start: String = prompt.trim().chars().take(TITLE).collect();
        Tags {
            title: start.split_whitespace().collect::<Vec<_>>().join(" "),
            prompt: prompt.to_owned(),
            lyrics: lyrics.to_owned(),
            seed,
            model: model.to_owned(),
        }
    }
}

/// A block of Vorbis comments, without the framing bit: that of a FLAC metadata block and, behind
/// its magic, of an Opus header.
pub(super) fn vorbis_comments(tags: Option<&Tags>) -> Vec<u8> {
    let mut comments = Vec::new();
    if let Some(tags) = tags {
        let seed = tags.seed.to_string();
        let fields = [
            ("TITLE", &tags.title),
            ("COMMENT", &tags.prompt),
            ("LYRICS", &tags.lyrics),
            ("SEED", &seed),
            ("MODEL", &tags.model),
        ];
        let known = fields.iter().filter(|(_, value)| !value.is_empty());
        comments.extend(known.map(|(name, value)| format!("{name}={value}")));
    }
    let mut block = Vec::new();
    let text = |block: &mut Vec<u8>, text: &str| {
        block.extend((text.len() as u32).to_le_bytes());
        block.extend(text.bytes());
    };
    text(&mut block, VENDOR);
    block.extend((comments.len() as u32).to_le_bytes());
    comments.iter().for_each(|c| text(&mut block, c));
    block
}

/// The same as an ID3v2.4 tag.
pub(super) fn id3_tag(tags: &Tags) -> Vec<u8> {
    let mut frames = Vec::new();
    id3::text(&mut frames, b"TIT2", &tags.title);
    id3::text(&mut frames, b"TSSE", VENDOR);
    id3::comment(&mut frames, b"COMM", &tags.prompt);
    id3::comment(&mut frames, b"USLT", &tags.lyrics);
    id3::named(&mut frames, "seed", &tags.seed.to_string());
    id3::named(&mut frames, "model", &tags.model);
    id3::tag(&frames)
}

/// The same as a RIFF chunk: a list of texts, which end with a zero and fill whole words
/// (Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0"). The list
/// knows no names but its own, so that seed and model stand in the comment, and lyrics in none.
pub(super) fn info_list(tags: &Tags) -> Vec<u8> {
    let Tags {
        title,
        prompt,
        seed,
        model,
        ..
    } = tags;
    let comment = format!("{prompt}\nseed={seed}\nmodel={model}");
    let mut list = b"INFO".to_vec();
    for (id, text) in [
        (b"INAM", title.as_str()),
        (b"ICMT", comment.trim_start()),
        (b"ISFT", VENDOR),
    ] {
        // A zero within would end the text early.
        let text = text.replace('\0', " ");
        if !text.is_empty() {
            chunk(&mut list, id, &[text.as_bytes(), &[0]].concat());
        }
    }
    let mut out = Vec::new();
    chunk(&mut out, b"LIST", &list);
    out
}

fn chunk(to: &mut Vec<u8>, id: &[u8; 4], content: &[u8]) {
    to.extend(id);
    to.extend((content.len() as u32).to_le_bytes());
    to.extend(content);
    if !content.len().is_multiple_of(2) {
        to.push(0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::audio::{AudioFormat, Pcm, write};
    use crate::song::NoWatch;
    use std::path::Path;
    use symphonia::core::formats::probe::Hint;
    use symphonia::core::io::MediaSourceStream;
    use symphonia::core::meta::MetadataRevision;

    fn tags() -> Tags {
        let prompt = "Dröhnender Bass,\n  helle Glocken ".to_owned() + &"und mehr ".repeat(40);
        Tags::new(&prompt, "[verse]\nHör zu\n", u64::MAX, "acestep-v15-turbo")
    }

    /// What a reader of files finds, as names and values.
    fn read(path: &Path) -> Vec<(String, String)> {
        if path.ends_with("wav") || path.ends_with("wav32") {
            return info_of(&std::fs::read(path).unwrap());
        }
        let file = Box::new(std::fs::File::open(path).unwrap());
        let stream = MediaSourceStream::new(file, Default::default());
        let mut reader = symphonia::default::get_probe()
            .probe(&Hint::new(), stream, Default::default(), Default::default())
            .unwrap();
        let mut found = Vec::new();
        let mut keep = |revision: &MetadataRevision| {
            let tags = revision.media.tags.iter();
            found.extend(tags.map(|t| (t.raw.key.clone(), t.raw.value.to_string())));
        };
        let mut metadata = reader.metadata();
        while let Some(revision) = metadata.pop() {
            keep(&revision);
        }
        if let Some(revision) = metadata.current() {
            keep(revision);
        }
        found
    }

    /// The texts of an INFO list at the end of a file, whose chunks must fill it.
    fn info_of(file: &[u8]) -> Vec<(String, String)> {
        let size = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(size(4) + 8, file.len());
        let (mut at, mut found) = (12, Vec::new());
        while at < file.len() {
            let (id, bytes) = (&file[at..at + 4], size(at + 4));
            at += 8;
            if id == b"LIST" {
                assert_eq!(&file[at..at + 4], b"INFO");
                at += 4;
                continue;
            }
            if matches!(id, b"INAM" | b"ICMT" | b"ISFT") {
                let text = String::from_utf8(file[at..at + bytes - 1].to_vec()).unwrap();
                found.push((String::from_utf8_lossy(id).into_owned(), text));
            }
            at += bytes.next_multiple_of(2);
        }
        found
    }

    #[test]
    fn a_title_is_one_line_of_the_prompt() {
        let title = tags().title;
        assert!(
            title.starts_with("Dröhnender Bass, helle Glocken und"),
            "{title}"
        );
        assert!((70..=80).contains(&title.chars().count()));
    }

    #[test]
    fn every_format_with_tags_gives_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let pcm = Pcm {
            samples: &[0.25; 96_000],
            rate: 48_000,
        };
        let tags = tags();
        for name in ["flac", "opus", "mp3", "aac", "wav", "wav32"] {
            let path = dir.path().join(name);
            let format = AudioFormat::parse(name).unwrap();
            write(&path, pcm, format, Some(&tags)).unwrap();
            let found = read(&path);
            let seed = tags.seed.to_string();
            let comment = format!("{}\nseed={seed}\nmodel={}", tags.prompt, tags.model);
            let values = match name {
                "wav" | "wav32" => vec![&tags.title, &comment],
                _ => vec![&tags.title, &tags.prompt, &tags.lyrics, &seed, &tags.model],
            };
            for value in values {
                assert!(
                    found.iter().any(|(_, v)| v == value),
                    "{name}: {value} in {found:?}"
                );
            }
            let back = crate::audio::read::read(&path, 9.0, &NoWatch).unwrap();
            // Whole frames of AAC.
            let more = if name == "aac" { 2 * 128 } else { 0 };
            assert_eq!(back.len(), pcm.samples.len() + more, "{name}");
        }
    }

    #[test]
    fn sizes_are_sync_safe() {
        let tags = Tags::new(&"x".repeat(300), "", 1, "m");
        let tag = id3_tag(&tags);
        let size = tag[6..10].iter().fold(0, |n, b| n << 7 | usize::from(*b));
        assert_eq!(tag.len(), size + 10);
        assert_eq!(&tag[10..14], b"TIT2");
        assert!(!tag.windows(4).any(|w| w == b"USLT"), "no lyrics, no frame");
    }
}
