//! Walks through the grammar, step by step. Those with ids run where the full vocabulary is at
//! hand (see `ACESTEP_GOLDENS` in the tokenizer's tests).

use super::*;
use crate::text::lm_tests::{real, tiny};
use std::sync::{Arc, OnceLock};

pub(super) fn tiny_grammar() -> Arc<Grammar> {
    static TINY: OnceLock<Arc<Grammar>> = OnceLock::new();
    let make = || Arc::new(Grammar::new(tiny().clone(), MAX_DURATION_S).unwrap());
    TINY.get_or_init(make).clone()
}

fn real_grammar() -> Option<Arc<Grammar>> {
    static REAL: OnceLock<Arc<Grammar>> = OnceLock::new();
    let tokenizer = real()?;
    let make = || Arc::new(Grammar::new(tokenizer.clone(), MAX_DURATION_S).unwrap());
    Some(REAL.get_or_init(make).clone())
}

/// A machine whose logits prefer one token.
pub(super) struct Walk {
    pub(super) machine: Machine,
    pub(super) logits: Vec<f32>,
    pub(super) text: String,
}

impl Walk {
    pub(super) fn new(grammar: Arc<Grammar>, settings: Settings, prompt: &[u32]) -> Self {
        let logits = vec![0.0; grammar.vocabulary().size() as usize];
        Walk {
            machine: Machine::new(grammar, settings, prompt).unwrap(),
            logits,
            text: String::new(),
        }
    }

    /// Legal ids when the model's first choice is `first`.
    pub(super) fn allowed_when(&mut self, first: u32) -> Vec<u32> {
        self.logits[first as usize] = 1.0;
        let mut ids = Vec::new();
        let set = self.machine.allowed(&self.logits);
        set.for_each_range(|r| ids.extend(r));
        assert_eq!(ids.len(), set.count());
        assert!(ids.is_sorted() && ids.iter().all(|id| set.contains(*id)));
        self.logits[first as usize] = 0.0;
        ids
    }

    /// Legal ids when the model prefers nothing.
    pub(super) fn allowed(&mut self) -> Vec<u32> {
        self.allowed_when(0)
    }

    pub(super) fn emit(&mut self, ids: &[u32]) {
        for id in ids {
            assert!(
                self.allowed_when(*id).contains(id),
                "{id} in {}",
                self.machine.state()
            );
            self.take(*id);
        }
    }

    pub(super) fn take(&mut self, id: u32) {
        self.text += &self.machine_text(id);
        self.machine.advance(id).unwrap();
    }

    fn machine_text(&self, id: u32) -> String {
        self.machine.grammar().vocabulary().text(id)
    }

    /// Writes what is forced, up to a choice, to the code state or to the end.
    pub(super) fn forced(&mut self) -> Vec<u32> {
        let mut ids = Vec::new();
        while let Some(id) = self.machine.forced().filter(|_| !self.machine.finished()) {
            ids.push(id);
            self.take(id);
        }
        ids
    }
}

fn upstream(phase: Phase) -> Settings {
    Settings {
        rules: Rules::Upstream,
        ..Settings::new(phase)
    }
}

pub(super) fn user(values: &[(Field, &str)]) -> BTreeMap<Field, String> {
    let owned = values.iter().map(|(f, v)| (*f, (*v).to_owned()));
    owned.collect()
}

#[test]
fn trees_have_as_many_prefixes_as_upstreams() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    for (field, prefixes) in [
        (Field::Bpm, 302),
        (Field::Duration, 602),
        (Field::KeyScale, 106),
        (Field::Language, 53),
        (Field::TimeSignature, 6),
    ] {
        assert_eq!(grammar.tree(field).unwrap().len(), prefixes, "{field:?}");
    }
    assert!(grammar.tree(Field::Caption).is_none());
}

#[test]
fn everything_given_is_forced() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    let settings = Settings {
        stop_at_reasoning: true,
        skip_caption: true,
        skip_language: true,
        user: user(&[
            (Field::Bpm, "120"),
            (Field::Duration, "30"),
            (Field::KeyScale, "F# minor"),
            (Field::TimeSignature, "3"),
        ]),
        ..upstream(Phase::Cot)
    };
    let mut walk = Walk::new(grammar, settings, &[]);
    let want = [
        151_667, 198, 17808, 76, 25, 220, 16, 17, 15, 198, 17021, 25, 220, 18, 15, 198, 10563,
        2246, 25, 434, 2, 8922, 198, 15136, 622, 1568, 25, 220, 18, 198, 151_645,
    ];
    assert_eq!(walk.forced(), want);
    assert_eq!(walk.machine.state(), State::Completed);
    assert!(walk.machine.finished());
}

#[test]
fn given_values_are_written_as_they_are() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    for (field, value, ids) in [
        (Field::Bpm, "120", &[220, 16, 17, 15, 198][..]),
        (Field::Bpm, "400", &[220, 19, 15, 15, 198]),
        (Field::Bpm, "6/8", &[220, 21, 14, 23, 198]),
        (Field::Bpm, "F# minor", &[434, 2, 8922, 198]),
        (Field::Bpm, "Am", &[3303, 198]),
        (Field::Bpm, " C\n Major", &[356, 17121, 198]),
    ] {
        let settings = Settings {
            user: user(&[(field, value)]),
            ..upstream(Phase::Cot)
        };
        let mut walk = Walk::new(grammar.clone(), settings, &[]);
        let forced = walk.forced();
        assert_eq!(&forced[5..5 + ids.len()], ids, "{value}");
    }
}

#[test]
fn numbers_are_drawn_digit_by_digit() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    let settings = Settings {
        skip_caption: true,
        skip_language: true,
        ..upstream(Phase::Cot)
    };
    let start = || {
        let mut walk = Walk::new(grammar.clone(), settings.clone(), &[]);
        assert_eq!(walk.forced(), [151_667, 198, 17808, 76, 25, 220]);
        assert_eq!(walk.allowed(), (16..=24).collect::<Vec<_>>());
        walk
    };
    let digits: Vec<u32> = (15..=24).collect();
    let mut walk = start();
    walk.emit(&[16]);
    assert_eq!(walk.allowed(), digits);
    walk.emit(&[17]);
    assert_eq!(walk.allowed(), digits);
    walk.emit(&[23]);
    assert_eq!(walk.allowed(), [198]);
    walk.emit(&[198]);
    assert_eq!(walk.machine.state(), State::Name(Field::Duration));
    assert!(walk.text.ends_with("bpm: 128\n"));
    let mut walk = start();
    walk.emit(&[18]);
    assert_eq!(walk.allowed(), digits);
    walk.emit(&[15]);
    assert_eq!(walk.allowed(), [15, 198]);
    walk.emit(&[15]);
    assert_eq!(walk.allowed(), [198]);
    assert!(walk.machine.advance(16).is_err());
}

#[test]
fn key_language_and_beats() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    let settings = Settings {
        stop_at_reasoning: true,
        skip_caption: true,
        user: user(&[(Field::Bpm, "120"), (Field::Duration, "30")]),
        ..upstream(Phase::Cot)
    };
    let mut walk = Walk::new(grammar, settings, &[]);
    walk.forced();
    assert_eq!(
        walk.allowed(),
        [356, 362, 422, 425, 434, 468, 479, 3680, 11988, 25570]
    );
    walk.emit(&[479]);
    assert_eq!(walk.allowed(), [2, 65, 3598, 8922, 145_346, 145_761]);
    walk.emit(&[65]);
    assert_eq!(walk.allowed(), [3598, 8922]);
    walk.emit(&[3598]);
    assert_eq!(walk.forced(), [198, 11528, 25]);
    // The model's first choice among the languages, whatever else it would like to say.
    walk.logits[5] = 9.0;
    assert_eq!(walk.allowed_when(379), [379]);
    walk.emit(&[379]);
    assert_eq!(walk.forced(), [361, 198, 15136, 622, 1568, 25, 220]);
    assert_eq!(walk.allowed(), [17, 18, 19, 21]);
    walk.emit(&[21]);
    assert_eq!(walk.forced(), [198, 151_645]);
    assert!(
        walk.text
            .ends_with("keyscale: Gb major\nlanguage: yue\ntimesignature: 6\n<|im_end|>")
    );
}

/// At the start of a caption.
fn captioned(rules: Rules, skip_language: bool) -> Option<Walk> {
    let settings = Settings {
        skip_language,
        rules,
        user: user(&[(Field::Bpm, "120")]),
        ..upstream(Phase::Cot)
    };
    let mut walk = Walk::new(real_grammar()?, settings, &[]);
    walk.forced();
    assert_eq!(walk.machine.state(), State::Value(Field::Caption));
    Some(walk)
}

const ALL: usize = 217_204;

#[test]
fn upstreams_caption_ends_with_a_field() {
    let Some(mut walk) = captioned(Rules::Upstream, true) else {
        return;
    };
    // The set with the digest 9ec7a08d... of upstream's: everything but these.
    let legal = walk.allowed();
    let blocked = |id: &u32| *id == 63 || (151_669..215_669).contains(id);
    assert_eq!(legal.len(), 153_203);
    assert!(!legal.iter().any(blocked));
    walk.emit(&[362, 19300, 26278, 6573, 624]);
    assert_eq!(walk.allowed_when(17021).len(), ALL);
    walk.emit(&[17021]);
    assert_eq!(walk.allowed().len(), ALL);
    walk.emit(&[25]);
    assert_eq!(walk.machine.state(), State::Value(Field::Duration));
    assert_eq!(walk.allowed(), [220]);
    walk.emit(&[220, 16, 23]);
    assert_eq!(
        walk.allowed(),
        [15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 198]
    );
    walk.emit(&[15, 198]);
    assert_eq!(walk.allowed(), [10563]);
}

#[test]
fn upstreams_caption_goes_on_and_skips_a_field() {
    let Some(mut walk) = captioned(Rules::Upstream, false) else {
        return;
    };
    walk.emit(&[362, 19300, 26278, 198]);
    assert_eq!(walk.allowed_when(220).len(), 153_203);
    walk.emit(&[220, 6384, 1467, 198]);
    assert_eq!(walk.allowed_when(10563).len(), ALL);
    walk.emit(&[10563, 2246, 25]);
    assert_eq!(walk.machine.state(), State::Value(Field::KeyScale));
    assert_eq!(walk.allowed()[0], 356);
}

#[test]
fn upstreams_caption_ends_with_an_unknown_name() {
    let Some(mut walk) = captioned(Rules::Upstream, false) else {
        return;
    };
    walk.emit(&[362, 624]);
    walk.emit(&[86, 539, 25]);
    assert_eq!(walk.allowed(), [17021]);
    walk.forced();
    assert!(walk.text.contains(".\nword:duration:"));
}

#[test]
fn upstreams_caption_is_cut_off() {
    let Some(mut walk) = captioned(Rules::Upstream, false) else {
        return;
    };
    for _ in 0..512 {
        assert_eq!(walk.machine.forced(), None);
        walk.take(26278);
    }
    assert_eq!(walk.machine.forced(), Some(198));
    walk.emit(&[198]);
    assert_eq!(walk.allowed_when(220), [198]);
    walk.emit(&[198]);
    assert_eq!(walk.allowed_when(17021).len(), ALL);
}

#[test]
fn a_strict_caption_is_followed_by_every_field() {
    let Some(mut walk) = captioned(Rules::Strict, false) else {
        return;
    };
    let legal = walk.allowed();
    assert!((150_000..151_643).contains(&legal.len()), "{}", legal.len());
    assert!(!legal.contains(&63) && legal.iter().all(|id| *id < 151_643));
    walk.emit(&[362, 19300, 26278, 198]);
    let indented = walk.allowed_when(220);
    assert!(indented.contains(&220) && indented.contains(&362));
    assert!(!indented.contains(&198) && !indented.contains(&10563));
    walk.emit(&[220, 6384, 1467, 198]);
    // The model would skip the duration.
    assert_eq!(walk.allowed_when(10563), [17021]);
    assert_eq!(walk.forced(), [17021, 25, 220]);
}

#[test]
fn a_strict_caption_is_cut_off() {
    let Some(mut walk) = captioned(Rules::Strict, false) else {
        return;
    };
    for _ in 0..512 {
        walk.take(26278);
    }
    assert_eq!(walk.forced(), [198, 17021, 25, 220]);
}

#[test]
fn codes_are_counted() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    let settings = Settings {
        target_s: Some(1.0),
        ..upstream(Phase::Codes)
    };
    let mut walk = Walk::new(grammar.clone(), settings.clone(), &[1, 151_668, 2]);
    for _ in 0..5 {
        assert!(!walk.machine.finished());
        let legal = walk.allowed();
        assert_eq!(
            (legal.len(), legal[0], legal[63_999]),
            (64_000, 151_669, 215_668)
        );
        walk.emit(&[200_000]);
    }
    assert!(walk.machine.finished());
    assert_eq!((walk.allowed(), walk.machine.codes()), (vec![151_645], 5));
    let open = Settings {
        target_s: None,
        ..settings.clone()
    };
    let mut walk = Walk::new(grammar.clone(), open, &[151_668]);
    assert_eq!(walk.allowed().len(), 64_001);
    walk.emit(&[151_669, 151_645]);
    assert!(walk.machine.finished());
    let mut walk = Walk::new(grammar, settings, &[1, 2]);
    assert_eq!(walk.allowed(), [151_667]);
}

#[test]
fn understanding_goes_on_with_lyrics() {
    let Some(grammar) = real_grammar() else {
        return;
    };
    let settings = Settings {
        user: user(&[
            (Field::Bpm, "90"),
            (Field::Caption, "X"),
            (Field::Duration, "12"),
            (Field::KeyScale, "A minor"),
            (Field::Language, "en"),
            (Field::TimeSignature, "4"),
        ]),
        ..upstream(Phase::Understand)
    };
    let mut walk = Walk::new(grammar.clone(), settings.clone(), &[]);
    let want = [
        151_667, 198, 17808, 76, 25, 220, 24, 15, 198, 23347, 25, 1599, 198, 17021, 25, 220, 16,
        17, 198, 10563, 2246, 25, 362, 8922, 198, 11528, 25, 662, 198, 15136, 622, 1568, 25, 220,
        19, 198, 151_668,
    ];
    assert_eq!(walk.forced(), want);
    assert_eq!(walk.machine.state(), State::Completed);
    assert_eq!(walk.allowed().len(), 153_204);
    let strict = Settings {
        rules: Rules::Strict,
        ..settings
    };
    let mut walk = Walk::new(grammar, strict, &[]);
    walk.forced();
    assert_eq!(walk.allowed().len(), 151_645);
    walk.emit(&[151_645]);
    assert!(walk.machine.finished());
}

#[test]
fn fields_are_skipped() {
    for (skip_caption, skip_language) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let given = Field::ALL.map(|f| (f, "1")).to_vec();
        let settings = Settings {
            skip_caption,
            skip_language,
            stop_at_reasoning: true,
            user: user(&given),
            ..Settings::new(Phase::Cot)
        };
        let mut walk = Walk::new(tiny_grammar(), settings, &[]);
        walk.forced();
        let expect = |name: &str, there: bool| assert_eq!(walk.text.contains(name), there);
        expect("\ncaption: 1\nduration: 1\n", !skip_caption);
        expect("bpm: 1\nduration: 1\n", skip_caption);
        expect("\nlanguage: 1\n", !skip_language);
        expect("keyscale: 1\ntimesignature: 1\n<|im_end|>", skip_language);
    }
}

#[test]
fn without_constraints_everything_is_legal() {
    let settings = Settings {
        constrained: false,
        target_s: Some(1.0),
        user: user(&[(Field::Bpm, "120")]),
        ..Settings::new(Phase::Cot)
    };
    let mut walk = Walk::new(tiny_grammar(), settings, &[]);
    walk.emit(&[5073, 1, 2]);
    assert_eq!(walk.allowed().len(), 5074);
    assert!(!walk.machine.finished());
    walk.emit(&[3000]);
    assert!(walk.machine.finished());
}

#[test]
fn machines_do_not_share_state() {
    let settings = |bpm: &str| Settings {
        user: user(&[(Field::Bpm, bpm)]),
        ..Settings::new(Phase::Cot)
    };
    let mut a = Walk::new(tiny_grammar(), settings("77"), &[]);
    let mut b = Walk::new(tiny_grammar(), settings("150"), &[]);
    while a.machine.state() != State::Value(Field::Caption) {
        for walk in [&mut a, &mut b] {
            if let Some(id) = walk.machine.forced() {
                walk.take(id);
            }
        }
    }
    b.forced();
    assert!(a.text.contains("bpm: 77\n") && b.text.contains("bpm: 150\n"));
}

#[test]
fn debugging_records_and_changes_nothing() {
    let run = |debug: bool| {
        let settings = Settings {
            skip_caption: true,
            user: user(&[(Field::Duration, "77")]),
            debug,
            ..Settings::new(Phase::Codes)
        };
        let settings = Settings {
            target_s: Some(0.4),
            ..settings
        };
        let mut walk = Walk::new(tiny_grammar(), settings, &[]);
        while !walk.machine.finished() {
            let id = walk.allowed()[0];
            walk.take(id);
        }
        (walk.text, walk.machine.take_events())
    };
    let (plain, none) = run(false);
    let (debugged, events) = run(true);
    assert_eq!((plain, none.len()), (debugged, 0));
    let log: Vec<String> = events.iter().map(Event::to_string).collect();
    for line in [
        "THINK_TAG -> NEWLINE_AFTER_THINK",
        "TIMESIG_VALUE -> THINK_END_TAG",
        "DURATION_VALUE: writes \" 77\\n\"",
        "code 2 of 2",
    ] {
        assert!(log.iter().any(|l| l == line), "{line}: {log:#?}");
    }
    assert!(
        log.iter()
            .any(|l| l.starts_with("BPM_VALUE: 9 legal, first [\"1\", \"2\"")),
        "{log:#?}"
    );
}
