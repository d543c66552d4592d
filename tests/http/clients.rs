//! What real clients send, in their order, and what they read of the answers. The sequences are
//! written down from a table of what each of them does; the clients themselves are not here.

use crate::multipart::{Part, body, tone};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tests::client::{Answer, get, items, post, send, wait};
use tests::fake::Fake;

const KEY: (&str, &str) = ("Authorization", "Bearer k");
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// POST of JSON with headers.
fn ask(fake: &Fake, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let headers = [&[JSON], headers].concat();
    send(
        fake.addr,
        "POST",
        path,
        &headers,
        body.to_string().as_bytes(),
    )
}

fn text(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("no text: {value}"));
    text.to_owned()
}

/// Asks with this body until the job has ended; its entry. What `result` holds is JSON in every
/// state, and its first item has what clients show.
fn poll(fake: &Fake, headers: &[(&str, &str)], body: &Value) -> Value {
    wait("the end of a job", || {
        let answer = ask(fake, "/query_result", headers, body);
        assert_eq!(answer.json()["code"], 200);
        let entry = answer.data()[0].clone();
        let item = items(&entry)[0].clone();
        assert!(item["progress"].is_number() && item["stage"].is_string());
        assert!(entry["progress_text"].is_string());
        Some(entry).filter(|entry| entry["status"] != 0)
    })
}

/// The real path within a result's `file`, as clients of the same machine read it.
fn path_of(file: &Value) -> std::path::PathBuf {
    let file = text(file);
    let encoded = file.split("path=").nth(1).expect("a path");
    let mut bytes = Vec::new();
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                u8::from_str_radix(&digits, 16).expect("two digits")
            }
            other => other,
        });
    }
    String::from_utf8(bytes).expect("a path").into()
}

#[test]
fn the_shell_client() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    assert_eq!(get(fake.addr, "/health").status, 200);
    let models = send(fake.addr, "GET", "/v1/models", &[KEY], &[]).data();
    assert_eq!(models["models"][0]["name"], models["default_model"]);
    let request = json!({
        "prompt": "pop", "lyrics": "la", "sample_query": "", "thinking": false,
        "use_format": false, "use_cot_caption": true, "use_cot_language": true,
        "vocal_language": "en", "audio_format": "mp3", "batch_size": 1, "audio_duration": 10,
        "bpm": 120, "key_scale": "C Major", "time_signature": "4/4", "seed": 42,
        "use_random_seed": false, "sample_mode": false, "task_type": "text2music",
        "audio_cover_strength": 1.0, "repainting_start": 0.0, "repainting_end": -1,
    });
    let kind = [("Content-Type", "application/json; charset=utf-8"), KEY];
    let sent = send(
        fake.addr,
        "POST",
        "/release_task",
        &kind,
        request.to_string().as_bytes(),
    );
    let id = text(&sent.data()["task_id"]);
    let entry = poll(&fake, &[KEY], &json!({ "task_id_list": [id] }));
    let item = items(&entry)[0].clone();
    assert_eq!(
        (&item["metas"]["bpm"], &item["metas"]["keyscale"]),
        (&json!(120), &json!("C Major"))
    );
    assert_eq!(item["metas"]["duration"], 10.0);
    let song = send(fake.addr, "GET", &text(&item["file"]), &[KEY], &[]);
    assert_eq!(
        (song.status, song.header("content-type")),
        (200, Some("audio/mpeg"))
    );
    assert_eq!(
        ask(&fake, "/release_task", &[], &request).json()["detail"],
        "Missing ai_token or Authorization header"
    );
}

#[test]
fn the_workstation_in_a_browser() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH2", "acestep-v15-base")]);
    let origin = ("Origin", "http://localhost:5173");
    let may = send(
        fake.addr,
        "OPTIONS",
        "/release_task",
        &[
            origin,
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
        ],
        &[],
    );
    assert_eq!(may.status, 200);
    assert_eq!(get(fake.addr, "/docs").status, 200);
    let list = send(fake.addr, "GET", "/api/v1/model_inventory", &[origin], &[]);
    assert_eq!(list.header("access-control-allow-origin"), Some(origin.1));
    let models = list.data()["models"].clone();
    assert!(models[0]["is_loaded"].is_boolean());
    assert!(
        models[0]["supported_task_types"]
            .as_array()
            .is_some_and(|t| !t.is_empty())
    );
    // Every value as text, a silent recording with a text-to-music request, settings nested.
    let silence = [&tone()[..44], &[0; 9600]].concat();
    let parts: &[Part] = &[
        ("prompt", None, b"pop"),
        ("lyrics", None, b""),
        ("task_type", None, b"text2music"),
        ("thinking", None, b"false"),
        ("batch_size", None, b"1"),
        ("audio_duration", None, b"12"),
        ("use_random_seed", None, b"true"),
        ("audio_format", None, b"wav"),
        ("global_caption", None, b""),
        ("track_name", None, b"drums"),
        ("chunk_mask_mode", None, b"auto"),
        ("repaint_mode", None, b"balanced"),
        ("repaint_strength", None, b"0.5"),
        ("negative_prompt", None, b"noise"),
        ("param_obj", None, br#"{"bpm": 100, "key": "A minor"}"#),
        ("src_audio", Some("silence.wav"), &silence),
    ];
    let kind = [
        ("Content-Type", "multipart/form-data; boundary=XyZ"),
        origin,
    ];
    let sent = send(fake.addr, "POST", "/api/release_task", &kind, &body(parts));
    let id = text(&sent.data()["task_id"]);
    let entry = poll(&fake, &[origin], &json!({ "task_id_list": [id] }));
    let item = items(&entry)[0].clone();
    assert_eq!(entry["status"], 1, "{entry}");
    assert_eq!(
        (&item["metas"]["bpm"], &item["metas"]["keyscale"]),
        (&json!(100), &json!("A minor"))
    );
    assert!(!text(&item["seed_value"]).is_empty() && item["dit_model"] == "acestep-v15-turbo");
    let song = get(fake.addr, &format!("/api{}", text(&item["file"])));
    assert_eq!(song.header("content-type"), Some("audio/wav"));
    assert!(get(fake.addr, "/api/v1/stats").data()["jobs"]["total"] == 1);
    let made = post(fake.addr, "/v1/create_sample", &json!({"query": "a waltz"})).data();
    assert!(made["caption"].is_string() && made["keyscale"].is_string());
    let example = post(
        fake.addr,
        "/create_random_sample",
        &json!({"sample_type": "custom_mode"}),
    );
    assert!(example.data()["lyrics"].is_string());
    let slot = post(
        fake.addr,
        "/v1/init",
        &json!({"model": "acestep-v15-base", "slot": 2}),
    );
    assert_eq!(slot.data()["loaded_model"], "acestep-v15-base");
}

#[test]
fn the_wrangler() {
    let fake = Fake::start(&[("ACESTEP_MODELS_FORMAT", "openrouter")]);
    assert_eq!(get(fake.addr, "/health").status, 200);
    assert!(get(fake.addr, "/v1/models").json()["data"].is_array());
    // Files are copied to the temporary folder and named by their absolute path.
    let copy = tempfile::Builder::new()
        .suffix(".wav")
        .tempfile()
        .expect("a file");
    std::fs::write(copy.path(), tone()).expect("written");
    let request = json!({
        "prompt": "x", "task_type": "cover", "src_audio_path": copy.path(),
        "cover_noise_strength": 0.2, "repaint_mode": "balanced", "repaint_strength": 0.5,
        "lm_model_path": "acestep-5Hz-lm-1.7B", "batch_size": 1,
    });
    let run = |request: &Value| {
        let id = text(&post(fake.addr, "/release_task", request).data()["task_id"]);
        poll(&fake, &[], &json!({ "task_id_list": [id] }))
    };
    let entry = run(&request);
    let item = items(&entry)[0].clone();
    let file = path_of(&item["file"]);
    assert!(file.is_absolute());
    let song = std::fs::read(&file).expect("the song is on this machine");
    assert_eq!(get(fake.addr, &text(&item["file"])).body, song);
    let codes = json!({
        "prompt": "x", "thinking": false, "audio_code_string": "<|audio_code_7|><|audio_code_8|>",
        "batch_size": 1,
    });
    assert_eq!(run(&codes)["status"], 1);
    let seen = fake.steering.seen();
    assert_eq!(seen.last().map(|s| s.codes.clone()), Some(vec![vec![7, 8]]));
    let analysis = json!({"full_analysis_only": true, "src_audio_path": copy.path()});
    let item = items(&run(&analysis))[0].clone();
    for key in ["bpm", "keyscale", "timesignature", "duration", "language"] {
        assert!(!item["metas"][key].is_null(), "{key}");
    }
    assert!(item["prompt"].is_string() && item["lyrics"].is_string());
    let format = post(
        fake.addr,
        "/format_input",
        &json!({"prompt": "x", "lyrics": "y", "param_obj": "{}"}),
    );
    assert!(format.data()["caption"].is_string());
    assert_eq!(
        post(fake.addr, "/v1/reinitialize", &json!({})).json()["code"],
        200
    );
}

#[test]
fn the_tool_of_a_language_model() {
    let fake = Fake::start(&[]);
    assert_eq!(get(fake.addr, "/health").status, 200);
    let request = json!({"prompt": "x", "duration": 10, "key_scale": "C Major", "bpm": 90});
    let id = text(&post(fake.addr, "/release_task", &request).data()["task_id"]);
    // The list as JSON text within JSON.
    let list = json!([id]).to_string();
    let entry = poll(&fake, &[], &json!({ "task_id_list": list }));
    let all = items(&entry);
    for item in all.as_array().expect("a list") {
        assert_eq!(item["status"], 1);
        assert!(path_of(&item["file"]).is_file());
        for key in ["seed_value", "dit_model", "lm_model", "generation_info"] {
            assert!(item[key].is_string(), "{key}");
        }
    }
}

#[test]
fn the_plug_in() {
    let fake = Fake::start(&[]);
    let health = get(fake.addr, "/health").json();
    assert_eq!(
        (&health["code"], &health["data"]["status"]),
        (&json!(200), &json!("ok"))
    );
    let request = json!({
        "prompt": "device", "seed": 3, "use_random_seed": false, "thinking": false,
        "audio_code_string": "", "reference_audio_path": "", "src_audio_path": "",
    });
    let id = text(&post(fake.addr, "/release_task", &request).data()["task_id"]);
    let entry = poll(&fake, &[], &json!({ "task_id_list": [id] }));
    let item = items(&entry)[0].clone();
    assert_eq!((&entry["status"], &item["status"]), (&json!(2), &json!(2)));
    assert!(!text(&item["error"]).is_empty());
    let mut request = request;
    (request["prompt"], request["audio_format"]) = (json!("x"), json!("flac"));
    let id = text(&post(fake.addr, "/release_task", &request).data()["task_id"]);
    let item = items(&poll(&fake, &[], &json!({ "task_id_list": [id] })))[0].clone();
    assert!(item["url"].is_null() && text(&item["file"]).ends_with(".flac"));
    assert_eq!(
        item["seed_value"]
            .as_str()
            .and_then(|s| s.split(',').next()),
        Some("3")
    );
}

#[test]
fn the_node_of_a_graph() {
    let fake = Fake::start(&[]);
    let part = json!({"data": STANDARD.encode(tone()), "format": "wav"});
    let body = json!({
        "model": "acestep/acestep-v15-turbo", "stream": false, "modalities": ["audio"],
        "messages": [{"role": "user", "content": [
            {"type": "text", "text": "<prompt>x</prompt><lyrics>[inst]</lyrics>"},
            {"type": "input_audio", "input_audio": part},
        ]}],
        "audio_config": {"format": "wav", "duration": 10, "bpm": null, "instrumental": false},
        "audio_codes": "", "cover_noise_strength": 0.0, "use_cot_metas": true, "seed": "5",
    });
    let reply =
        post(fake.addr, "/v1/chat/completions", &body).json()["choices"][0]["message"].clone();
    let url = text(&reply["audio"][0]["audio_url"]["url"]);
    assert!(url.starts_with("data:audio/wav;base64,UklGR"));
    assert!(reply["content"].is_string());
    let seen = &fake.steering.seen()[0];
    assert_eq!(seen.seeds, [5]);
    assert!(seen.reference.is_some() && seen.source.is_none());
}

#[test]
fn the_node_servers() {
    let fake = Fake::start(&[]);
    let active = get(fake.addr, "/v1/models").data()["models"][0]["name"].clone();
    let done = post(fake.addr, "/v1/init", &json!({ "model": active })).data();
    assert_eq!(done["loaded_model"], active);
    let object = json!({"bpm": "90", "key": "C Major", "time_signature": "4", "duration": 30});
    let format = post(
        fake.addr,
        "/format_input",
        &json!({"prompt": "x", "lyrics": "", "param_obj": object}),
    )
    .json();
    assert_eq!(
        (&format["code"], &format["error"], &format["detail"]),
        (&json!(200), &json!(null), &json!(null))
    );
    assert_eq!(format["data"]["bpm"], 90);
    let chat = json!({
        "messages": [{"role": "user", "content": "x"}],
        "audio_duration": 20, "audio_format": "wav", "lyrics": "[Verse]\nla",
    });
    assert_eq!(post(fake.addr, "/v1/chat/completions", &chat).status, 200);
    let seen = &fake.steering.seen()[0];
    assert_eq!(
        (seen.duration_s, seen.lyrics.as_str()),
        (Some(20.0), "[Verse]\nla")
    );
    // Dozens of keys that mean nothing to us.
    let mut request: Value = (0..60)
        .map(|i| (format!("unknown_{i}"), json!(i)))
        .collect();
    request["prompt"] = json!("x");
    let id = text(&post(fake.addr, "/release_task", &request).data()["task_id"]);
    let entry = poll(
        &fake,
        &[],
        &json!({ "task_id_list": format!("[\"{id}\"]") }),
    );
    assert_eq!(entry["status"], 1);
    assert_eq!(
        post(fake.addr, &format!("/cleanup/{id}"), &json!({})).status,
        200
    );
}

#[test]
fn the_page_with_a_player() {
    let fake = Fake::start(&[("ACESTEP_API_KEY", "k")]);
    let tone = tone();
    let parts: &[Part] = &[
        ("ai_token", None, b"k"),
        ("prompt", None, b"x"),
        ("reference_audio", Some("a.wav"), &tone),
    ];
    let kind = [("Content-Type", "multipart/form-data; boundary=XyZ")];
    let sent = send(fake.addr, "POST", "/release_task", &kind, &body(parts));
    let id = text(&sent.data()["task_id"]);
    let entry = poll(&fake, &[], &json!({"task_id_list": [id], "ai_token": "k"}));
    let file = text(&items(&entry)[0]["file"]);
    // A player cannot send headers; it asks for parts.
    let address = format!("{file}&ai_token=k");
    let part = send(fake.addr, "GET", &address, &[("Range", "bytes=0-")], &[]);
    assert_eq!(part.status, 206);
    assert_eq!(send(fake.addr, "GET", &file, &[KEY], &[]).body, part.body);
    assert_eq!(get(fake.addr, &file).status, 401);
}
