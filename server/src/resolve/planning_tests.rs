//! What requests want of the language model.

use super::tests::{cli, http};
use super::*;
use engine::song::{Planning, Wish};
use serde_json::{Value, json};

fn planning(body: Value) -> Planning {
    http(true, body).unwrap().song.planning.unwrap()
}

#[test]
fn how_much_a_job_depends_on_the_language_model() {
    for (body, need) in [
        (json!({}), LmNeed::IfLoaded),
        (json!({"desc": " "}), LmNeed::IfLoaded),
        (json!({"use_cot_caption": false}), LmNeed::IfLoaded),
        (json!({"use_cot_caption": true}), LmNeed::Wanted),
        (json!({"cot_language": "true"}), LmNeed::Wanted),
        (json!({"thinking": true}), LmNeed::Required),
        (json!({"sampleMode": "true"}), LmNeed::Required),
        (json!({"desc": "a sad song"}), LmNeed::Required),
        (json!({"use_format": true}), LmNeed::Required),
        (json!({"analysis_only": true}), LmNeed::Required),
        (json!({"full_analysis_only": true}), LmNeed::Required),
        (
            json!({"extract_codes_only": true, "thinking": true}),
            LmNeed::IfLoaded,
        ),
    ] {
        assert_eq!(http(true, body.clone()).unwrap().lm, need, "{body}");
    }
}

#[test]
fn what_the_language_model_does() {
    let plain = planning(json!({}));
    assert!(plain.metadata && plain.caption && plain.language);
    assert!(plain.constrained && plain.batch);
    assert!(!plain.codes && !plain.format && !plain.debug && !plain.keep_language);
    assert_eq!(plain.wish, None);
    assert_eq!(
        plain.sampling,
        engine::sample::logits::TokenSampling::default()
    );
    type Get = fn(&Planning) -> bool;
    let flags: [(&str, bool, Get); 8] = [
        ("thinking", true, |p| p.codes),
        ("use_format", true, |p| p.format),
        ("use_cot_metas", false, |p| !p.metadata),
        ("use_cot_caption", false, |p| !p.caption),
        ("use_cot_language", false, |p| !p.language),
        ("constrained_decoding", false, |p| !p.constrained),
        ("constrained_decoding_debug", true, |p| p.debug),
        ("parallel_thinking", false, |p| !p.batch),
    ];
    for (name, value, is_set) in flags {
        assert!(is_set(&planning(json!({ name: value }))), "{name}");
    }
    // A song that is invented has its metadata already.
    let invented = planning(json!({"sample_mode": true}));
    assert!(!invented.metadata);
    assert!(planning(json!({"sample_query": "x"})).metadata);
}

#[test]
fn how_tokens_are_drawn() {
    let sampling = |body| planning(body).sampling;
    for (top_p, taken) in [(0.5, 0.5), (1.0, 0.0), (2.0, 0.0), (0.0, 0.0), (-1.0, 0.0)] {
        assert_eq!(sampling(json!({ "lm_top_p": top_p })).top_p, taken);
    }
    assert_eq!(sampling(json!({"lm_top_p": null})).top_p, 0.9);
    for (top_k, taken) in [
        (json!(5), 5),
        (json!(0), 0),
        (json!(-3), 0),
        (json!(null), 0),
    ] {
        assert_eq!(sampling(json!({ "lm_top_k": top_k })).top_k, taken);
    }
    let s = sampling(json!({
        "lm_temperature": 0, "lm_cfg_scale": 0.5, "lm_repetition_penalty": -2,
    }));
    assert_eq!(
        (s.temperature, s.guidance, s.repetition_penalty),
        (0.0, 1.0, 0.1)
    );
    let s = sampling(json!({"lm_temperature": 1.5, "lm_cfg_scale": 3}));
    assert_eq!((s.temperature, s.guidance), (1.5, 3.0));
    assert!(cli(true, json!({"lm_repetition_penalty": 0})).is_err());
    assert_eq!(
        planning(json!({"lm_negative_prompt": "drums"})).negative,
        "drums"
    );
}

#[test]
fn wishes_name_language_and_voices() {
    let r = http(
        true,
        json!({"sample_query": " German rap ", "vocal_language": "en"}),
    )
    .unwrap();
    assert_eq!(r.song.language, "de");
    let p = r.song.planning.unwrap();
    assert!(p.keep_language);
    let wish = Wish {
        query: "German rap".into(),
        instrumental: false,
    };
    assert_eq!(p.wish, Some(wish));
    // What the client says counts more than what the wish says.
    let r = http(
        true,
        json!({"sample_query": "German rap solo", "language": "fr"}),
    )
    .unwrap();
    assert_eq!(r.song.language, "fr");
    let p = r.song.planning.unwrap();
    assert!(p.keep_language && p.wish.unwrap().instrumental);
    // The language that most clients send by themselves is nobody's choice for a wish.
    let r = http(true, json!({"sample_mode": true, "vocal_language": "en"})).unwrap();
    assert!(!r.song.planning.unwrap().keep_language);
    for (body, keeps) in [
        (json!({"vocal_language": "en"}), true),
        (json!({"vocal_language": "unknown"}), false),
        (json!({"vocal_language": ""}), false),
    ] {
        assert_eq!(planning(body.clone()).keep_language, keeps, "{body}");
    }
}

#[test]
fn audio_codes_as_text_or_list() {
    let codes = |body| http(true, body).unwrap().song.codes;
    let none: [Vec<u32>; 0] = [];
    for blank in [json!(""), json!(null), json!([]), json!(["", " "])] {
        assert_eq!(codes(json!({ "audio_codes": blank })), none);
    }
    let text = "<|audio_code_1|><|audio_code_70000|>";
    assert_eq!(codes(json!({ "audio_code_string": text })), [[1, 63_999]]);
    assert_eq!(
        codes(json!({"audioCodeString": ["1,2", "3"]})),
        [vec![1, 2], vec![3]]
    );
    // In turn, or cut off.
    let r = http(true, json!({"audio_codes": ["1", "2"], "batch_size": 3})).unwrap();
    assert_eq!(r.song.codes, [[1], [2], [1]]);
    assert_eq!(r.notes.len(), 1);
    let r = http(true, json!({"audio_codes": ["1", "2"], "batch_size": 1})).unwrap();
    assert_eq!((r.song.codes, r.notes.len()), (vec![vec![1]], 1));
    // Ten minutes at most.
    let long = vec!["7"; 3001].join(",");
    let r = http(true, json!({ "audio_codes": long })).unwrap();
    assert_eq!((r.song.codes[0].len(), r.notes.len()), (3000, 1));
    let r = http(true, json!({"audio_codes": "music"})).unwrap();
    assert_eq!((r.song.codes.len(), r.notes.len()), (0, 1));
    assert!(cli(true, json!({"audio_codes": "music"})).is_err());
}

#[test]
fn entries_of_codes_keep_to_a_few_notes() {
    let sent = |codes: Value, songs: u64| {
        let body = json!({ "audio_codes": codes, "batch_size": songs });
        let r = http(true, body).unwrap();
        (r.song.codes, r.notes)
    };
    // What is not heard is not read.
    let many = vec!["70000"; 5000];
    let (codes, notes) = sent(json!(many), 2);
    assert_eq!(codes, [[63_999], [63_999]]);
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].contains("2 codes above 63999") && notes[1].contains("5000 lists"));
    let (codes, notes) = sent(json!(vec!["music"; 5000]), 2);
    assert_eq!((codes.len(), notes.len()), (0, 1));
    assert!(notes[0].contains("entry 1 and 4999 more without a code"));
    let (codes, notes) = sent(json!(["", "1", "2"]), 2);
    assert_eq!(codes, [[1], [2]]);
    assert_eq!(
        notes,
        ["audio_code_string: entry 1 is blank: the songs take the others in turn"]
    );
    let refused = cli(true, json!({"audio_codes": ["1", " "], "batch_size": 2}));
    assert!(refused.is_err_and(|e| e.0.contains("entry 2 is blank")));
}

#[test]
fn what_is_not_known_is_not_given() {
    for said in ["N/A", " n/a ", "", " "] {
        let r = http(
            true,
            json!({"key_scale": said, "time_signature": said, "bpm": said, "duration": said}),
        )
        .unwrap();
        assert_eq!(r.song.metas, Metas::default(), "{said}");
        assert_eq!((r.song.duration_s, r.notes.len()), (None, 0), "{said}");
        assert!(r.echo.key_scale.is_empty() && r.echo.time_signature.is_empty());
    }
}

#[test]
fn a_key_is_one_short_line() {
    let long = "x".repeat(65);
    for wrong in ["C</think>", "C\nbpm: 1", "C\u{2028}major", &long] {
        let body = json!({ "key_scale": wrong });
        let r = http(true, body.clone()).unwrap();
        assert_eq!(
            (r.song.metas.key_scale, r.notes.len()),
            (None, 1),
            "{wrong}"
        );
        assert_eq!(r.echo.key_scale, "");
        assert!(cli(true, body).is_err_and(|e| e.0.starts_with("--key must be one line")));
    }
    for right in ["H moll", &long[1..], "C: major"] {
        let key = http(true, json!({ "key_scale": right }))
            .unwrap()
            .song
            .metas;
        assert_eq!(key.key_scale.as_deref(), Some(right));
    }
}

#[test]
fn only_languages_there_are_are_imposed() {
    for body in [
        json!({"vocal_language": "klingon"}),
        json!({"vocal_language": "klingon", "sample_query": "a song"}),
    ] {
        assert!(!planning(body.clone()).keep_language, "{body}");
    }
    let r = http(
        true,
        json!({"language": "xx", "sample_query": "German rap"}),
    )
    .unwrap();
    assert_eq!(r.song.language, "de");
}

#[test]
fn the_language_model_is_named_by_the_end_of_its_path() {
    let name = |path| {
        http(true, json!({ "lm_model_path": path }))
            .unwrap()
            .lm_model
    };
    assert_eq!(
        name("/models/acestep-5Hz-lm-4B/").as_deref(),
        Some("acestep-5Hz-lm-4B")
    );
    assert_eq!(name(" "), None);
}
