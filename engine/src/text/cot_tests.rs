//! Vectors of the planner's metadata: written as PyYAML writes it, read as upstream reads it.

use super::cot::*;
use proptest::prelude::*;

fn text(t: &str) -> Option<String> {
    Some(t.to_owned())
}

fn metadata(fields: &[(&str, &str)]) -> Metadata {
    let mut m = Metadata::default();
    for (name, value) in fields {
        match *name {
            "bpm" => m.bpm = Some(Number::parse(value)),
            "caption" => m.caption = text(value),
            "duration" => m.duration = Some(Number::parse(value)),
            "genres" => m.genres = text(value),
            "keyscale" => m.keyscale = text(value),
            "language" => m.language = text(value),
            "timesignature" => m.timesignature = text(value),
            other => panic!("{other}"),
        }
    }
    m
}

#[test]
fn metadata_is_written_as_yaml() {
    let long = "A melancholic, introspective indie folk ballad driven by fingerpicked acoustic \
                guitar and a soft, breathy female vocal. Subtle strings swell in the chorus, \
                adding warmth before receding into a sparse, intimate outro.";
    let cases: [(&[(&str, &str)], &str); 8] = [
        (
            &[
                ("timesignature", "4"),
                ("bpm", "120"),
                ("caption", "upbeat pop song"),
                ("duration", "30"),
                ("keyscale", "C major"),
                ("language", "en"),
            ],
            "bpm: 120\ncaption: upbeat pop song\nduration: 30\nkeyscale: C major\nlanguage: en\n\
             timesignature: 4",
        ),
        (
            &[
                ("bpm", "120"),
                ("duration", "30"),
                ("keyscale", "F# minor"),
                ("timesignature", "3/4"),
            ],
            "bpm: 120\nduration: 30\nkeyscale: F# minor\ntimesignature: 3",
        ),
        (
            &[
                ("bpm", "90"),
                ("caption", "Note: it's \"big\" #1"),
                ("duration", "30"),
                ("keyscale", "Bb major"),
                ("language", "no"),
                ("timesignature", "6/8"),
            ],
            "bpm: 90\ncaption: 'Note: it''s \"big\" #1'\nduration: 30\nkeyscale: Bb major\n\
             language: 'no'\ntimesignature: 6/8",
        ),
        (
            &[
                ("caption", "120"),
                ("language", "unknown"),
                ("timesignature", "4/4"),
            ],
            "caption: 120\nlanguage: unknown\ntimesignature: 4",
        ),
        (
            &[("caption", "tab\there"), ("bpm", "N/A")],
            "bpm: N/A\ncaption: \"tab\\there\"",
        ),
        (
            &[
                ("caption", "温柔的民谣🎵"),
                ("keyscale", "F♯ minor"),
                ("genres", "x"),
            ],
            "caption: 温柔的民谣🎵\nkeyscale: F♯ minor",
        ),
        (
            &[
                ("caption", long),
                ("bpm", "120"),
                ("duration", "180"),
                ("keyscale", "A minor"),
                ("language", "en"),
                ("timesignature", "4"),
            ],
            "bpm: 120\ncaption: A melancholic, introspective indie folk ballad driven by \
             fingerpicked acoustic\n  guitar and a soft, breathy female vocal. Subtle strings \
             swell in the chorus, adding\n  warmth before receding into a sparse, intimate \
             outro.\nduration: 180\nkeyscale: A minor\nlanguage: en\ntimesignature: 4",
        ),
        (&[], ""),
    ];
    for (fields, yaml) in cases {
        assert_eq!(metadata(fields).to_yaml(), yaml);
    }
}

#[test]
fn scalars_that_yaml_would_misread_are_quoted() {
    let value = |text: &str| {
        let mut out = String::from("x:");
        super::yaml::write_scalar(text, 2, &mut out);
        out[3..].to_owned()
    };
    for quoted in [
        "",
        "~",
        "null",
        "Yes",
        "OFF",
        "0x1F",
        "017",
        "0b1",
        "1_000",
        "-5",
        "1:30",
        "1.5",
        "-.inf",
        ".5",
        "1.",
        "1.5e+3",
        "190:20:30.15",
        "2001-12-14",
        "2001-1-2 3:04:05",
        "<<",
        "=",
        ".nan",
        "2001-12-14t21:59:43.10-05:00",
        "- a",
        "? a",
        ": a",
        "a: b",
        "a #b",
        "#a",
        "---",
        "@x",
        " a",
        "a:",
        "-",
    ] {
        assert_eq!(value(quoted), format!("'{quoted}'"), "{quoted}");
    }
    for plain in [
        "1.5e3",
        "1e5",
        "08",
        "+.5",
        "nul",
        "yES",
        "a:b",
        "a#b",
        "-a",
        "?a",
        ":a",
        "2001-12-1x",
        "2001-1-1",
        "61:70",
        "x - y",
        "0:30",
        "192.168.0.1",
        "..",
    ] {
        assert_eq!(value(plain), plain);
    }
    for (text, double) in [
        ("a \n b", r#""a \n b""#),
        ("\u{1b}\r", r#""\e\r""#),
        ("\u{feff}é\t", r#""\uFEFFé\t""#),
        ("🎵\u{1}", r#""\U0001F3B5\x01""#),
    ] {
        assert_eq!(value(text), double);
    }
    assert_eq!(value("a\nb"), "'a\n\n  b'");
}

#[test]
fn completions_are_read() {
    let cases: [(&str, &[(&str, &str)]); 5] = [
        (
            "<think>\nbpm: 120\ncaption: A calm\n  piano piece.\nduration: 180\nkeyscale: C major\n\
             language: en\ntimesignature: 4\n<|im_end|>",
            &[
                ("bpm", "120"),
                ("caption", "A calm piano piece."),
                ("duration", "180"),
                ("keyscale", "C major"),
                ("language", "en"),
                ("timesignature", "4"),
            ],
        ),
        (
            "<think>\nbpm: N/A\nduration: 12.5\ngenres: pop, rock\n\nlanguage:\n en\n\
             TimeSignature: 6/8\n</think>\n# Lyric\n[Verse]\nHi<|im_end|>",
            &[
                ("bpm", "N/A"),
                ("duration", "12.5"),
                ("genres", "pop, rock"),
                ("language", "en"),
                ("timesignature", "6/8"),
            ],
        ),
        (
            "bpm: 120\nfoo: bar\n  cont\nkeyscale: C major",
            &[("bpm", "120"), ("keyscale", "C major")],
        ),
        (
            "<think>\ncaption: A calm piano piece.\nword:duration: 33\nkeyscale: C major\n",
            &[("caption", "A calm piano piece."), ("keyscale", "C major")],
        ),
        (
            "<think>\ncaption: 'it''s \"big\": yes'\nkeyscale: \"A \\\"x\\\"\"\n</think>",
            &[("caption", "it's \"big\": yes"), ("keyscale", "A \"x\"")],
        ),
    ];
    for (output, fields) in cases {
        assert_eq!(parse_output(output).metadata, metadata(fields), "{output}");
    }
    let codes = "<|audio_code_1|><|audio_code_63999|>x<|audio_code_64000|><|im_end|>";
    assert_eq!(parse_output(codes).codes, [1, 63999, 63999]);
}

#[test]
fn lyrics_follow_the_reasoning() {
    for (after, lyrics) in [
        ("\n# Lyric\n[Verse]\nHi<|im_end|>", "[Verse]\nHi"),
        ("\n\n#lyrics \n\nla", "la"),
        ("# Lyri|\nla\n", "la"),
        (
            "# Languages\nen\n\n# Lyric\n[Verse]\n# Lyric\n",
            "[Verse]\n# Lyric",
        ),
        ("plain words", "plain words"),
        ("", ""),
    ] {
        let output = format!("<think>\nbpm: 1\n</think>{after}");
        assert_eq!(parse_output(&output).lyrics, lyrics, "{after:?}");
    }
    assert_eq!(parse_output("<think>\nbpm: 1\nno end").lyrics, "");
}

#[test]
fn what_is_known_of_metadata() {
    let m = metadata(&[
        ("bpm", "120"),
        ("duration", "12.5"),
        ("keyscale", "N/A"),
        ("language", " "),
    ]);
    assert_eq!((m.known_bpm(), m.known_duration()), (Some(120), Some(12.5)));
    assert_eq!(Metadata::known(&m.keyscale), None);
    assert_eq!(Metadata::known(&m.language), None);
    let m = metadata(&[("bpm", "-3"), ("duration", "inf"), ("keyscale", " C ")]);
    assert_eq!((m.known_bpm(), m.known_duration()), (None, None));
    assert_eq!(Metadata::known(&m.keyscale), Some("C"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was written is read back, however long, whatever is quoted.
    #[test]
    fn written_metadata_is_read_back(
        bpm in 1i64..999,
        duration in 1i64..999,
        caption in "[A-Za-z'\":#,é温-]{1,9}( [A-Za-z'\":#,é温-]{1,12}){0,40}",
        keyscale in "[A-G](#|b|♯|♭)? (major|minor)",
        language in "(en|no|yue|unknown)",
    ) {
        let m = Metadata {
            bpm: Some(Number::Whole(bpm)),
            caption: Some(caption),
            duration: Some(Number::Whole(duration)),
            keyscale: Some(keyscale),
            language: Some(language),
            timesignature: text("3"),
            genres: None,
        };
        let yaml = m.to_yaml();
        prop_assert_eq!(&parse_output(&format!("<think>\n{yaml}\n</think>")).metadata, &m);
    }

    #[test]
    fn any_text_is_read(text in "\\PC*|(<think>|</think>|bpm:|caption:|[a\n :#<>'\"])*") {
        let output = parse_output(&text);
        output.metadata.to_yaml();
    }
}
