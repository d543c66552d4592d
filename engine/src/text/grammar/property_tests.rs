//! Whatever the logits, and whatever is drawn from what is legal: the completion ends, parses,
//! stays within its ranges, keeps every value of the user, and has the exact number of codes.

use super::tests::tiny_grammar;
use super::*;
use crate::text::{Number, parse_output};
use proptest::prelude::*;

/// A word of a counter-based generator (SplitMix64).
fn word(seed: u64, at: u64) -> u64 {
    let mut x = seed.wrapping_add(at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Runs a machine on random logits to its end, or to `most` tokens; returns the tokens.
fn run(settings: Settings, prompt: &[u32], seed: u64, most: usize) -> (Vec<u32>, bool) {
    let grammar = tiny_grammar();
    let size = grammar.vocabulary().size() as usize;
    let mut machine = Machine::new(grammar, settings, prompt).unwrap();
    let mut ids = Vec::new();
    while !machine.finished() && ids.len() < most {
        let step = ids.len() as u64;
        // Every sixth set of logits prefers a line end, so that captions end in all ways.
        let mut logits: Vec<f32> = (0..size as u64)
            .map(|v| (word(seed, step << 32 | v) >> 40) as f32)
            .collect();
        if word(seed, step).is_multiple_of(6) {
            logits[198] = f32::INFINITY;
        }
        // Logits that need not be computed change nothing.
        let head = machine.looked_at();
        let mut part = Vec::new();
        let set = machine.allowed(&logits[..head.end as usize]);
        set.for_each_range(|ids| part.push(ids));
        let set = machine.allowed(&logits);
        let mut whole = Vec::new();
        set.for_each_range(|ids| whole.push(ids));
        assert_eq!(part, whole);
        assert!(head.start == 0 && whole.iter().all(|ids| ids.end <= head.end));
        assert!(set.count() > 0);
        let draw = word(!seed, step);
        let id = if draw.is_multiple_of(2) {
            set.best(&logits)
        } else {
            let mut left = (draw >> 1) as usize % set.count();
            let mut drawn = None;
            set.for_each_range(|ids| {
                drawn = drawn.or_else(|| ids.clone().nth(left));
                left = left.saturating_sub(ids.len());
            });
            drawn.unwrap()
        };
        assert!(set.contains(id));
        machine.advance(id).unwrap();
        ids.push(id);
    }
    (ids, machine.finished())
}

fn in_range(number: &Option<Number>, range: std::ops::RangeInclusive<i64>) -> bool {
    matches!(number, Some(Number::Whole(n)) if range.contains(n))
}

fn some_user() -> impl Strategy<Value = BTreeMap<Field, String>> {
    let values = (
        proptest::option::of((30u32..=300).prop_map(|n| n.to_string())),
        proptest::option::of((10u32..=600).prop_map(|n| n.to_string())),
        proptest::option::of("[A-G](#|b)? (major|minor|Major)|Am"),
        proptest::option::of(proptest::sample::select(&LANGUAGES[..]).prop_map(str::to_owned)),
        proptest::option::of("[2346]|6/8|4/4"),
    );
    values.prop_map(|(bpm, duration, key, language, beats)| {
        let all = [
            (Field::Bpm, bpm),
            (Field::Duration, duration),
            (Field::KeyScale, key),
            (Field::Language, language),
            (Field::TimeSignature, beats),
        ];
        all.into_iter().filter_map(|(f, v)| Some((f, v?))).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn reasoning_is_legal_whatever_the_logits(
        seed: u64,
        user in some_user(),
        skip_caption: bool,
        skip_language: bool,
        lyrics: bool,
    ) {
        let phase = if lyrics { Phase::Understand } else { Phase::Cot };
        let settings = Settings {
            stop_at_reasoning: !lyrics,
            skip_caption,
            skip_language,
            user: user.clone(),
            ..Settings::new(phase)
        };
        let (ids, finished) = run(settings, &[], seed, 700);
        prop_assert!(finished || lyrics);
        let vocabulary = tiny_grammar();
        let vocabulary = vocabulary.vocabulary();
        let text = vocabulary.decode(&ids, false);
        let output = parse_output(&text);
        let m = &output.metadata;
        prop_assert!(in_range(&m.bpm, 30..=300), "{text}");
        prop_assert!(in_range(&m.duration, 10..=600), "{text}");
        let given = |field| user.get(&field).cloned();
        let text_of = |n: &Option<Number>| n.as_ref().map(Number::to_string);
        for (field, value) in [
            (Field::Bpm, text_of(&m.bpm)),
            (Field::Duration, text_of(&m.duration)),
            (Field::KeyScale, m.keyscale.clone()),
            (Field::Language, m.language.clone().filter(|_| !skip_language)),
            (Field::TimeSignature, m.timesignature.clone()),
        ] {
            if given(field).is_some() && !(field == Field::Language && skip_language) {
                prop_assert_eq!(value, given(field), "{}", text);
            }
        }
        let key = m.keyscale.clone().unwrap_or_default();
        let legal_key = ["major", "minor"].iter().any(|mode| key.ends_with(mode));
        prop_assert!(legal_key || given(Field::KeyScale).is_some(), "{text}");
        let language = m.language.as_deref();
        prop_assert_eq!(language.is_none(), skip_language);
        prop_assert!(language.is_none_or(|l| LANGUAGES.contains(&l)), "{}", text);
        let beats = m.timesignature.as_deref().unwrap_or_default();
        prop_assert!(["2", "3", "4", "6"].contains(&beats) || given(Field::TimeSignature).is_some());
        prop_assert!(!skip_caption || m.caption.is_none());
        prop_assert!(output.codes.is_empty(), "{}", text);
        // Nothing but the fields' own line ends and tags.
        let control = ids.iter().filter(|id| vocabulary.plain_bytes(**id).is_none()).count();
        prop_assert!(control <= 3, "{}", text);
    }

    #[test]
    fn codes_are_exactly_counted_whatever_the_logits(seed: u64, tenths in 1u32..120) {
        let seconds = f64::from(tenths) / 10.0;
        let settings = Settings { target_s: Some(seconds), ..Settings::new(Phase::Codes) };
        let (ids, finished) = run(settings, &[3025], seed, 1000);
        prop_assert!(finished);
        prop_assert_eq!(ids.len(), (seconds * 5.0) as usize);
        let grammar = tiny_grammar();
        prop_assert!(ids.iter().all(|id| grammar.vocabulary().legal_codes().contains(id)));
        let text = grammar.vocabulary().decode(&ids, false);
        prop_assert_eq!(parse_output(&text).codes.len(), ids.len());
    }
}
