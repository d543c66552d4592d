//! The language model over HTTP: the real engine on the tiny tree, whose weights are random, so
//! that nothing but the rules keeps what it writes legal.

use crate::engine::{start, tiny};
use engine::text::LANGUAGES;
use engine::text::grammar::is_key;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tests::client::{get, items, post, query, release, wait, wav_data};
use tests::random::Random;

/// The items of a job that succeeds. Songs of a plan take their time on a busy machine.
fn made(addr: SocketAddr, body: &Value) -> Value {
    let id = release(addr, body);
    let start = Instant::now();
    loop {
        let entry = query(addr, &id);
        if entry["status"] != 0 {
            assert_eq!(entry["status"], 1, "{body}: {entry}");
            return items(&entry);
        }
        assert!(start.elapsed() < Duration::from_secs(300), "{body}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Codes per song, as `generation_info` says.
fn codes(item: &Value) -> usize {
    let info = item["generation_info"].as_str().unwrap_or_default();
    let count = info
        .split(" for codes (")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let count = count.and_then(|count| count.parse().ok());
    count.unwrap_or_else(|| panic!("no number of codes in {info}"))
}

/// A request for short songs in one step.
fn quick(more: Value) -> Value {
    let mut body = json!({
        "prompt": "upbeat pop", "lyrics": "[Verse]\nla la", "inference_steps": 1,
        "batch_size": 1, "audio_format": "wav", "seed": "3", "use_random_seed": false,
        "audio_duration": 10,
    });
    for (name, value) in more.as_object().cloned().unwrap_or_default() {
        body[name.as_str()] = value;
    }
    body
}

/// Panics when a value that the user did not give is not legal.
fn assert_legal(body: &Value, metas: &Value) {
    let ours = |key: &str| body.get(key).is_none_or(|v| v == "" || v.is_null());
    let is_unknown = |key: &str| metas[key] == "N/A";
    if ours("bpm") && !is_unknown("bpm") {
        let bpm = metas["bpm"].as_u64();
        assert!(
            bpm.is_some_and(|b| (30..=300).contains(&b)),
            "{body}: {metas}"
        );
    }
    if ours("key_scale") && !is_unknown("keyscale") {
        let key = metas["keyscale"].as_str();
        assert!(key.is_some_and(is_key), "{body}: {metas}");
    }
    if ours("time_signature") && !is_unknown("timesignature") {
        let beats = metas["timesignature"].as_str().unwrap_or_default();
        assert!(["2", "3", "4", "6"].contains(&beats), "{body}: {metas}");
    }
    if !is_unknown("duration") {
        let seconds = metas["duration"].as_f64().unwrap_or_default();
        // The user's own codes may be few.
        let least = if ours("audio_code_string") { 10.0 } else { 0.2 };
        assert!((least..=600.0).contains(&seconds), "{body}: {metas}");
    }
    if let Some(language) = metas["language"].as_str() {
        assert!(
            language == "unknown" || LANGUAGES.contains(&language),
            "{body}: {metas}"
        );
    }
    for (sent, shown) in [
        ("bpm", "bpm"),
        ("key_scale", "keyscale"),
        ("time_signature", "timesignature"),
        ("audio_duration", "duration"),
    ] {
        if !ours(sent) {
            let same = match (body[sent].as_f64(), metas[shown].as_f64()) {
                (Some(sent), Some(shown)) => sent == shown,
                _ => body[sent] == metas[shown],
            };
            assert!(same, "{sent} changed, {body}: {metas}");
        }
    }
}

#[test]
fn a_planned_song_has_five_codes_a_second_and_keeps_what_was_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let body = quick(json!({
        "thinking": true, "audio_duration": 12.7, "bpm": 93, "key_scale": "F# minor",
        "batch_size": 2, "seed": "1,2",
    }));
    let made = made(server.addr(), &body);
    for item in made.as_array().expect("two songs") {
        assert_eq!(codes(item), 63);
        let file = get(server.addr(), item["file"].as_str().expect("a file")).body;
        assert_eq!(wav_data(&file), 63 * 9600 * 4, "63 codes are 12.6 s");
        let metas = &item["metas"];
        assert_eq!(
            (&metas["bpm"], &metas["keyscale"], &metas["duration"]),
            (&json!(93), &json!("F# minor"), &json!(12.7))
        );
        assert_legal(&body, metas);
        assert_ne!(metas["timesignature"], "N/A");
        assert_eq!(
            (&metas["prompt"], &metas["lyrics"]),
            (&json!("upbeat pop"), &json!("[Verse]\nla la"))
        );
        assert_eq!(metas["caption"], item["prompt"]);
        assert_ne!(metas["caption"], "upbeat pop", "it was rewritten");
        assert_eq!(item["lm_model"], "acestep-5Hz-lm-0.6B");
    }
    server.stop();
}

#[test]
fn every_parameter_of_the_language_model_has_an_effect() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let addr = server.addr();
    let song = |more: Value| {
        let mut body = quick(json!({
            "thinking": true, "bpm": 120, "key_scale": "C major", "time_signature": "4",
        }));
        for (name, value) in more.as_object().cloned().unwrap_or_default() {
            body[name.as_str()] = value;
        }
        let made = made(addr, &body);
        get(addr, made[0]["file"].as_str().expect("a file")).body
    };
    let plain = song(json!({}));
    assert_eq!(song(json!({})), plain, "a seed decides everything");
    assert_eq!(
        song(json!({"allow_lm_batch": false, "lm_backend": "mlx"})),
        plain
    );
    for more in [
        json!({"lm_temperature": 0}),
        json!({"lm_cfg_scale": 1}),
        json!({"lm_negative_prompt": "noise"}),
        json!({"lm_top_k": 2}),
        json!({"lm_top_p": 0.1}),
        json!({"lm_repetition_penalty": 1.5}),
        json!({"thinking": false}),
        json!({"seed": "4"}),
    ] {
        assert_ne!(song(more.clone()), plain, "{more}");
    }
    server.stop();
}

/// Fields that concern the language model: the name, in one of how many requests it may be
/// there, and its values, of which each and none are equally likely.
fn fields() -> Value {
    let (caption, codes) = ("x".repeat(700), "<|audio_code_5|>".repeat(50));
    json!([
        ["prompt", 1, ["a: b\n# c", "日本語", caption]],
        ["lyrics", 1, ["[Verse]\nla", "[inst]", "</think>"]],
        ["thinking", 1, [true, "yes", 0]],
        ["sample_mode", 80, [true]],
        ["sample_query", 80, ["piano solo", "a song in German"]],
        ["use_format", 60, [true]],
        ["use_cot_caption", 1, [false, 0, "no", false, true]],
        ["use_cot_language", 2, [true, false, "yes", 0]],
        ["use_cot_metas", 2, [true, false, "yes", 0]],
        ["allow_lm_batch", 2, [true, false, "yes", 0]],
        ["constrained_decoding", 100, [false]],
        ["constrained_decoding_debug", 10, [true]],
        ["lm_temperature", 2, [0, 0.3, 2, 99, "x"]],
        ["lm_cfg_scale", 2, [0, 1, 7.5, 1e9]],
        ["lm_top_k", 2, [-1, 0, 1, 50]],
        ["lm_top_p", 2, [0, 0.01, 0.95, 1, 7]],
        ["lm_repetition_penalty", 2, [0, 1.3, -5, 1e9]],
        ["lm_negative_prompt", 3, ["", "<|im_end|>"]],
        ["bpm", 2, [30, 300, 118]],
        ["key_scale", 2, ["Bb minor", "H dur", ""]],
        ["time_signature", 2, ["6/8", "2", ""]],
        ["vocal_language", 2, ["ja", "unknown", "xx"]],
        [
            "audio_code_string",
            8,
            [
                codes,
                ["<|audio_code_63999|><|audio_code_99999|>", "1,2,3"],
                "no codes",
            ]
        ],
    ])
}

/// A request with some of everything that concerns the language model.
fn random_request(random: &mut Random) -> Value {
    // Without music it is soon done, and without a caption even sooner.
    let is_analysis = random.below(7) > 0;
    let songs = 1 + usize::from(random.below(8) == 0);
    let mut body = json!({
        "batch_size": songs, "seed": random.below(1 << 30).to_string(),
        "use_random_seed": false, "inference_steps": 1, "audio_format": "wav",
        "analysis_only": is_analysis,
    });
    for field in fields().as_array().into_iter().flatten() {
        let one_in = field[1].as_u64().unwrap_or(1) as usize;
        let values = field[2].as_array().map_or(&[][..], Vec::as_slice);
        if random.below(one_in) == 0
            && let Some(value) = values.get(random.below(values.len() + 1))
        {
            body[field[0].as_str().unwrap_or_default()] = value.clone();
        }
    }
    // What is not limited may be ten minutes long, which is fine where no music is made of it.
    if !is_analysis || random.below(2) == 0 {
        body["audio_duration"] = json!(10.0 + random.below(30) as f64 / 10.0);
    }
    body
}

#[test]
fn random_requests_never_fail_and_never_leave_a_range() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let mut random = Random::named("random requests over HTTP");
    let mut planned = 0;
    for _ in 0..200 {
        let body = random_request(&mut random);
        let made = made(server.addr(), &body);
        let songs = made.as_array().expect("a list");
        let analysis = body["analysis_only"] == true;
        let expected = if analysis {
            1
        } else {
            body["batch_size"].as_u64().unwrap_or(0)
        };
        assert_eq!(songs.len() as u64, expected, "{body}");
        for item in songs {
            assert_legal(&body, &item["metas"]);
            let thinks = [json!(true), json!("yes")].contains(&body["thinking"]);
            if thinks && !analysis && body.get("audio_code_string").is_none() {
                let seconds = body["audio_duration"].as_f64().unwrap_or_default();
                assert_eq!(codes(item), (seconds * 5.0).floor() as usize, "{body}");
                planned += 1;
            }
            if let Some(file) = item["file"].as_str().filter(|f| !f.is_empty()) {
                let head = tests::client::send(server.addr(), "HEAD", file, &[], &[]);
                assert_eq!(head.status, 200);
            }
        }
    }
    assert!(planned > 5, "only {planned} songs were planned");
    server.stop();
}

#[test]
fn descriptions_are_legal_and_keep_what_was_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let addr = server.addr();
    // Greedy: these routes draw a seed of their own, with which a caption may turn out empty.
    let body = json!({
        "prompt": "pop", "lyrics": "la", "temperature": 0, "param_obj": {"bpm": 61, "key": "G major",
        "duration": 33.5, "language": "yue"},
    });
    let formatted = post(addr, "/format_input", &body).data();
    for (key, expected) in [
        ("bpm", json!(61)),
        ("key_scale", json!("G major")),
        ("duration", json!(33.5)),
        ("vocal_language", json!("yue")),
    ] {
        assert_eq!(formatted[key], expected, "{formatted}");
    }
    let beats = formatted["time_signature"].as_str().unwrap_or_default();
    assert!(["2", "3", "4", "6"].contains(&beats), "{formatted}");
    assert_ne!(formatted["caption"], "pop");
    let wish = json!({"query": "anything", "instrumental": true, "temperature": 0});
    let sample = post(addr, "/v1/create_sample", &wish).data();
    assert!(
        sample["bpm"]
            .as_u64()
            .is_some_and(|b| (30..=300).contains(&b)),
        "{sample}"
    );
    assert!(sample["keyscale"].as_str().is_some_and(is_key), "{sample}");
    assert_eq!(sample["lyrics"], "[Instrumental]");
    let language = sample["vocal_language"].as_str().unwrap_or_default();
    assert!(LANGUAGES.contains(&language), "{sample}");
    assert_eq!(get(addr, "/health").data()["models_initialized"], false);
    server.stop();
}

#[test]
fn models_are_exchanged_and_missing_ones_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let addr = server.addr();
    let init = |body: Value| post(addr, "/v1/init", &body);
    let done = init(json!({"model": "acestep-v15-base", "init_llm": true})).data();
    assert_eq!(done["loaded_model"], "acestep-v15-base");
    assert_eq!(done["loaded_lm_model"], "acestep-5Hz-lm-0.6B");
    let song = made(addr, &quick(json!({})));
    assert_eq!(song[0]["dit_model"], "acestep-v15-base");
    let lm = json!({"init_llm": true, "lm_model_path": "acestep-5Hz-lm-9B"});
    for (body, named) in [
        (lm, "5Hz LM model not found at "),
        (
            json!({"model": "acestep-v15-nothing"}),
            "acestep-v15-nothing is missing",
        ),
    ] {
        let answer = init(body).json();
        let error = answer["error"].as_str().unwrap_or_default();
        assert_eq!(answer["code"], 500);
        assert!(
            error.starts_with("Model initialization failed: "),
            "{error}"
        );
        assert!(error.contains(named), "{error}");
    }
    // What was there is there still.
    assert_eq!(get(addr, "/health").data()["llm_initialized"], true);
    let song = made(addr, &quick(json!({"thinking": true})));
    assert_eq!(
        (codes(&song[0]), &song[0]["dit_model"]),
        (50, &json!("acestep-v15-base"))
    );
    server.stop();
}

#[test]
fn without_a_language_model_the_reason_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).expect("made");
    for name in ["acestep-v15-turbo", "vae", "Qwen3-Embedding-0.6B"] {
        std::os::unix::fs::symlink(tiny().join(name), tree.join(name)).expect("linked");
    }
    let server = start(tree, dir.path(), &[]);
    let addr = server.addr();
    assert_eq!(made(addr, &quick(json!({})))[0]["metas"]["bpm"], "N/A");
    let id = release(addr, &quick(json!({"thinking": true})));
    let entry = tests::client::finished(addr, &id);
    let error = items(&entry)[0]["error"].clone();
    let error = error.as_str().unwrap_or_default();
    let expected = "5Hz LM init failed: 5Hz LM model not found at ";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.contains("acestep-5Hz-lm-0.6B"), "{error}");
    let answer = post(addr, "/format_input", &json!({}));
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .detail()
            .starts_with("LLM init failed: 5Hz LM model not found at ")
    );
    server.stop();
}

#[test]
fn the_server_stops_while_codes_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = start(tiny(), dir.path(), &[]);
    let addr = server.addr();
    let body = quick(json!({"thinking": true, "audio_duration": 600, "batch_size": 8}));
    let id = release(addr, &body);
    wait("the codes", || {
        let stage = items(&query(addr, &id))[0]["stage"].clone();
        stage
            .as_str()
            .is_some_and(|s| s.contains("codes"))
            .then_some(())
    });
    let start = Instant::now();
    server.stop();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
}
