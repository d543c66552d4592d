//! The walks of the published vocabulary over the tiny one: what is legal is told in texts, so
//! that they hold whatever the ids.

use super::tests::{Walk, tiny_grammar, user};
use super::*;

/// Tokens of the tiny vocabulary: all, and those of codes.
const ALL: usize = 5074;
const CODES: usize = 2048;

fn walk(phase: Phase, rules: Rules, change: impl FnOnce(&mut Settings)) -> Walk {
    let mut settings = Settings {
        rules,
        stop_at_reasoning: phase == Phase::Cot,
        ..Settings::new(phase)
    };
    change(&mut settings);
    Walk::new(tiny_grammar(), settings, &[])
}

fn ids(text: &str) -> Vec<u32> {
    tiny_grammar().tokenizer().encode_text(text).unwrap()
}

/// Writes `text`, token by token, each of which has to be legal.
fn write(walk: &mut Walk, text: &str) {
    walk.emit(&ids(text));
}

/// Texts of the legal tokens, sorted.
fn legal(walk: &mut Walk) -> Vec<String> {
    let vocabulary = tiny_grammar();
    let texts = walk.allowed().into_iter();
    let mut texts: Vec<String> = texts.map(|id| vocabulary.vocabulary().text(id)).collect();
    texts.sort();
    texts
}

/// How many tokens are legal where the model would write `text`.
fn count_when(walk: &mut Walk, text: &str) -> usize {
    walk.allowed_when(ids(text)[0]).len()
}

const BOTH: [Rules; 2] = [Rules::Strict, Rules::Upstream];
const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

#[test]
fn w1_everything_given_is_forced() {
    for rules in BOTH {
        let mut walk = walk(Phase::Cot, rules, |s| {
            s.skip_caption = true;
            s.skip_language = true;
            s.user = user(&[
                (Field::Bpm, "120"),
                (Field::Duration, "30"),
                (Field::KeyScale, "F# minor"),
                (Field::TimeSignature, "3"),
            ]);
        });
        walk.forced();
        assert_eq!(
            walk.text,
            "<think>\nbpm: 120\nduration: 30\nkeyscale: F# minor\ntimesignature: 3\n<|im_end|>"
        );
        assert!(walk.machine.finished());
    }
}

#[test]
fn w2_numbers_are_drawn_digit_by_digit() {
    for rules in BOTH {
        let start = || {
            let mut walk = walk(Phase::Cot, rules, |s| s.skip_caption = true);
            walk.forced();
            assert_eq!(walk.text, "<think>\nbpm: ");
            assert_eq!(legal(&mut walk), DIGITS[1..]);
            walk
        };
        let mut free = start();
        for digit in ["1", "2"] {
            write(&mut free, digit);
            assert_eq!(legal(&mut free), DIGITS);
        }
        write(&mut free, "8");
        assert_eq!(legal(&mut free), ["\n"]);
        write(&mut free, "\n");
        assert_eq!(free.machine.state(), State::Name(Field::Duration));
        let mut limit = start();
        for (digit, next) in [("3", &DIGITS[..]), ("0", &["\n", "0"]), ("0", &["\n"])] {
            write(&mut limit, digit);
            assert_eq!(legal(&mut limit), next);
        }
    }
}

#[test]
fn w3_key_language_and_beats() {
    for rules in BOTH {
        let mut walk = walk(Phase::Cot, rules, |s| {
            s.skip_caption = true;
            s.user = user(&[(Field::Bpm, "120"), (Field::Duration, "30")]);
        });
        walk.forced();
        assert!(walk.text.ends_with("keyscale:"));
        write(&mut walk, " Gb major");
        walk.forced();
        assert!(walk.text.ends_with("Gb major\nlanguage:"), "{}", walk.text);
        // The model's first choice among the languages, whatever else it would like to say.
        let yue = ids(" yue");
        walk.logits[5] = 9.0;
        assert_eq!(walk.allowed_when(yue[0]), yue[..1]);
        write(&mut walk, " yue");
        walk.forced();
        assert!(
            walk.text.ends_with(" yue\ntimesignature: "),
            "{}",
            walk.text
        );
        assert_eq!(legal(&mut walk), ["2", "3", "4", "6"]);
        write(&mut walk, "6");
        walk.forced();
        assert!(walk.text.ends_with(": 6\n<|im_end|>"));
        assert!(walk.machine.finished());
    }
}

/// At the start of a caption.
fn captioned(rules: Rules) -> Walk {
    let mut walk = walk(Phase::Cot, rules, |s| s.user = user(&[(Field::Bpm, "120")]));
    walk.forced();
    assert_eq!(walk.machine.state(), State::Value(Field::Caption));
    walk
}

#[test]
fn w4_a_caption_ends_with_a_field() {
    let mut upstream = captioned(Rules::Upstream);
    assert_eq!(upstream.allowed().len(), ALL - CODES - 1);
    write(&mut upstream, " A calm piano piece.\n");
    assert_eq!(count_when(&mut upstream, "duration"), ALL);
    write(&mut upstream, "duration:");
    assert_eq!(legal(&mut upstream), [" "]);
    write(&mut upstream, " 18");
    let mut digits_or_end = DIGITS.to_vec();
    digits_or_end.insert(0, "\n");
    assert_eq!(legal(&mut upstream), digits_or_end);
    write(&mut upstream, "0\n");
    assert_eq!(upstream.machine.state(), State::Name(Field::KeyScale));
    let mut strict = captioned(Rules::Strict);
    write(&mut strict, " A calm piano piece.\n");
    assert_eq!(count_when(&mut strict, "duration"), 1);
    strict.forced();
    assert!(strict.text.ends_with("piece.\nduration: "));
}

#[test]
fn w5_a_caption_goes_on_and_may_skip_a_field() {
    for rules in BOTH {
        let mut walk = captioned(rules);
        write(&mut walk, " A calm\n");
        let goes_on = count_when(&mut walk, " more");
        assert_eq!(goes_on == ALL - CODES - 1, rules == Rules::Upstream);
        write(&mut walk, " more text\n");
        match rules {
            Rules::Upstream => {
                assert_eq!(count_when(&mut walk, "keyscale"), ALL);
                write(&mut walk, "keyscale:");
                assert_eq!(walk.machine.state(), State::Value(Field::KeyScale));
            }
            Rules::Strict => {
                assert_eq!(count_when(&mut walk, "keyscale"), 1);
                walk.forced();
                assert!(walk.text.ends_with("more text\nduration: "));
            }
        }
    }
}

#[test]
fn w6_an_unknown_name_goes_on_with_the_next() {
    let mut walk = captioned(Rules::Upstream);
    write(&mut walk, " A.\n");
    write(&mut walk, "word:");
    walk.forced();
    assert!(walk.text.contains(".\nword:duration:"), "{}", walk.text);
}

#[test]
fn w7_a_caption_is_cut_off() {
    for rules in BOTH {
        let mut walk = captioned(rules);
        let letter = ids("a")[0];
        for _ in 0..512 {
            assert_eq!(walk.machine.forced(), None);
            walk.take(letter);
        }
        assert_eq!(legal(&mut walk), ["\n"]);
        walk.emit(&ids("\n"));
        match rules {
            Rules::Upstream => {
                assert_eq!(walk.allowed_when(ids(" ")[0]), ids("\n"));
                assert_eq!(count_when(&mut walk, "duration"), ALL);
            }
            Rules::Strict => {
                walk.forced();
                assert!(walk.text.ends_with("a\nduration: "));
            }
        }
    }
}

#[test]
fn w8_codes_are_counted() {
    let vocabulary = tiny_grammar();
    let vocabulary = vocabulary.vocabulary();
    let control = vocabulary.control();
    for (rules, target_s) in BOTH.into_iter().flat_map(|r| [(r, Some(1.0)), (r, None)]) {
        let settings = Settings {
            rules,
            target_s,
            ..Settings::new(Phase::Codes)
        };
        let prompt = [1, control.think_end, 2];
        let mut walk = Walk::new(tiny_grammar(), settings.clone(), &prompt);
        for _ in 0..5 {
            let legal = walk.allowed();
            assert_eq!(legal.contains(&control.turn_end), target_s.is_none());
            assert_eq!(legal.len(), CODES + usize::from(target_s.is_none()));
            walk.emit(&[vocabulary.codes().start + 7]);
        }
        assert_eq!(walk.machine.finished(), target_s.is_some());
        match target_s {
            Some(_) => assert_eq!(walk.allowed(), [control.turn_end]),
            None => walk.emit(&[control.turn_end]),
        }
        assert!(walk.machine.finished());
        let mut unreasoned = Walk::new(tiny_grammar(), settings, &[1, 2]);
        assert_eq!(unreasoned.allowed(), [control.think]);
    }
}

#[test]
fn w9_understanding_goes_on_with_lyrics() {
    for (rules, free) in [(Rules::Upstream, ALL - CODES), (Rules::Strict, 3002)] {
        let mut walk = walk(Phase::Understand, rules, |s| {
            s.user = user(&[
                (Field::Bpm, "90"),
                (Field::Caption, "X"),
                (Field::Duration, "12"),
                (Field::KeyScale, "A minor"),
                (Field::Language, "en"),
                (Field::TimeSignature, "4"),
            ]);
        });
        walk.forced();
        assert_eq!(
            walk.text,
            "<think>\nbpm: 90\ncaption: X\nduration: 12\nkeyscale: A minor\nlanguage: en\n\
             timesignature: 4\n</think>"
        );
        assert_eq!(walk.machine.state(), State::Completed);
        assert_eq!(walk.allowed().len(), free);
    }
}

#[test]
fn w10_fields_are_skipped() {
    for rules in BOTH {
        let given = [
            Field::Bpm,
            Field::Duration,
            Field::KeyScale,
            Field::TimeSignature,
        ];
        let mut walk = walk(Phase::Cot, rules, |s| {
            s.skip_caption = true;
            s.skip_language = true;
            s.user = user(&given.map(|f| (f, "1")));
        });
        let mut names = Vec::new();
        while !walk.machine.finished() {
            if let State::Name(field) = walk.machine.state()
                && names.last() != Some(&field)
            {
                names.push(field);
            }
            let id = walk.machine.forced().unwrap();
            walk.take(id);
        }
        assert_eq!(names, given);
    }
}

#[test]
fn the_debug_log_of_codes_is_short() {
    let settings = Settings {
        target_s: Some(24.2),
        debug: true,
        ..Settings::new(Phase::Codes)
    };
    let control = tiny_grammar().vocabulary().control();
    let mut walk = Walk::new(tiny_grammar(), settings, &[control.think_end]);
    while !walk.machine.finished() {
        let id = walk.allowed()[0];
        walk.take(id);
    }
    let log: Vec<String> = walk
        .machine
        .take_events()
        .iter()
        .map(Event::to_string)
        .collect();
    assert!(
        log[0].starts_with("CODES_GENERATION: 2048 legal"),
        "{log:?}"
    );
    assert_eq!(
        log[1..],
        ["code 50 of 121", "code 100 of 121", "code 121 of 121"]
    );
}
