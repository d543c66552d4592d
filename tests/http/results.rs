//! `POST /query_result`: every state and every way to ask.

use engine::Error;
use serde_json::{Value, json};
use tests::client::{finished, items, post, query, release, send, wait};
use tests::fake::Fake;

#[test]
fn ways_to_ask() {
    let fake = Fake::start(&[]);
    let id = release(fake.addr, &json!({"batch_size": 1}));
    finished(fake.addr, &id);
    let list = json!([id, "nobody", id]);
    let as_text = list.to_string();
    let form = format!(
        "task_id_list={}",
        as_text
            .replace('"', "%22")
            .replace(',', "%2C")
            .replace(' ', "+")
    );
    let json_type = "application/json; charset=utf-8";
    for (content_type, body) in [
        (Some(json_type), json!({ "task_id_list": list }).to_string()),
        (
            Some(json_type),
            json!({ "task_id_list": as_text }).to_string(),
        ),
        (Some("application/x-www-form-urlencoded"), form.clone()),
        (None, form),
    ] {
        let headers: Vec<_> = content_type
            .into_iter()
            .map(|t| ("Content-Type", t))
            .collect();
        let answer = send(
            fake.addr,
            "POST",
            "/query_result",
            &headers,
            body.as_bytes(),
        );
        let data = answer.data();
        assert_eq!(data.as_array().map(Vec::len), Some(3), "{body}");
        assert_eq!((&data[0], &data[0]["status"]), (&data[2], &json!(1)));
        assert_eq!(
            data[1],
            json!({"task_id": "nobody", "result": "[]", "status": 0})
        );
    }
}

#[test]
fn nothing_asked_nothing_answered() {
    let fake = Fake::start(&[]);
    for body in [
        json!({}),
        json!({"task_id_list": null}),
        json!({"task_id_list": ""}),
        json!({"task_id_list": []}),
        json!({"task_id_list": "bare-id"}),
        json!({"task_id_list": "\"abc\""}),
        json!({"task_id_list": 5}),
        json!({"task_id_list": {"a": 1}}),
    ] {
        assert_eq!(
            post(fake.addr, "/query_result", &body).data(),
            json!([]),
            "{body}"
        );
    }
    let other = send(
        fake.addr,
        "POST",
        "/query_result",
        &[("Content-Type", "image/png")],
        b"\xff",
    );
    assert_eq!(other.data(), json!([]));
    let data = post(
        fake.addr,
        "/query_result",
        &json!({"task_id_list": [1, null, {}]}),
    )
    .data();
    assert_eq!(data.as_array().map(Vec::len), Some(3));
    assert_eq!(data[0], json!({"task_id": 1, "result": "[]", "status": 0}));
    let json = [("Content-Type", "application/json")];
    for (body, detail) in [
        ("{", "Malformed JSON payload"),
        ("", "Malformed JSON payload"),
        ("[]", "JSON payload must be an object"),
    ] {
        let answer = send(fake.addr, "POST", "/query_result", &json, body.as_bytes());
        assert_eq!((answer.status, answer.detail().as_str()), (400, detail));
    }
}

/// The item of a job without results.
fn waiting(stage: &str, progress: f64, create_time: &Value) -> Value {
    json!([{
        "file": "", "wave": "", "status": 0, "create_time": create_time, "env": "development",
        "prompt": "", "lyrics": "", "metas": {}, "progress": progress, "stage": stage,
        "error": null,
    }])
}

#[test]
fn queued_and_running() {
    let fake = Fake::start(&[]);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({"batch_size": 3}));
    let queued = release(fake.addr, &json!({}));
    let entry = wait("the first job to run", || {
        Some(query(fake.addr, &running)).filter(|e| items(e)[0]["progress"].as_f64() > Some(0.5))
    });
    let item = items(&entry);
    assert!(item[0]["create_time"].as_u64() > Some(1_700_000_000));
    let stage = "Generating music (batch size: 3)...";
    assert_eq!(item, waiting(stage, 0.66, &item[0]["create_time"]));
    assert_eq!(entry["progress_text"], format!("66% {stage}"));
    let entry = query(fake.addr, &queued);
    let item = items(&entry);
    assert_eq!(item, waiting("queued", 0.0, &item[0]["create_time"]));
    assert_eq!(
        (&entry["status"], &entry["progress_text"]),
        (&json!(0), &json!("queued, position 1"))
    );
    fake.steering.hold(false);
}

#[test]
fn lyrics_are_timed_where_that_is_asked_for() {
    let fake = Fake::start(&[]);
    let made = |body: Value| items(&finished(fake.addr, &release(fake.addr, &body)));
    let timed = made(json!({
        "get_lrc": "true", "lyrics": "la", "seed": "3,4", "use_random_seed": false,
    }));
    assert_eq!(timed[0]["lrc"], "[00:00.00]song 3");
    assert_eq!(timed[1]["lrc"], "[00:00.00]song 4");
    assert_eq!(made(json!({"lyrics": "la"}))[0].get("lrc"), None);
}

#[test]
fn succeeded() {
    let fake = Fake::start(&[("ACESTEP_LM_MODEL_PATH", "acestep-5Hz-lm-1.7B")]);
    let id = release(
        fake.addr,
        &json!({
            "prompt": "a \"quoted\" ♪", "lyrics": "la\nla", "bpm": 120, "key_scale": "C Major",
            "time_signature": "4/4", "audio_duration": 30, "seed": 9, "use_random_seed": false,
        }),
    );
    let entry = finished(fake.addr, &id);
    assert_eq!(
        (&entry["task_id"], &entry["status"]),
        (&json!(id), &json!(1))
    );
    assert_eq!(entry["progress_text"], "succeeded");
    let items = items(&entry);
    let list = items.as_array().expect("a list");
    assert_eq!(list.len(), 2);
    assert_ne!(list[0]["file"], list[1]["file"]);
    for item in list {
        for (key, value) in [
            ("wave", json!("")),
            ("status", json!(1)),
            ("env", json!("development")),
            ("prompt", json!("a \"quoted\" ♪")),
            ("lyrics", json!("la\nla")),
            ("lm_model", json!("acestep-5Hz-lm-1.7B")),
            ("dit_model", json!("acestep-v15-turbo")),
            ("progress", json!(1.0)),
            ("stage", json!("succeeded")),
        ] {
            assert_eq!(item[key], value, "{key}");
        }
        assert_eq!(
            item["metas"],
            json!({
                "bpm": 120, "duration": 30.0, "genres": "N/A", "keyscale": "C Major",
                "timesignature": "4/4", "prompt": "a \"quoted\" ♪", "lyrics": "la\nla",
            })
        );
        assert!(
            item["seed_value"]
                .as_str()
                .is_some_and(|s| s.starts_with("9,"))
        );
        assert!(item["create_time"].is_u64());
        let file = item["file"].as_str().expect("a text");
        let encoded = file
            .strip_prefix("/v1/audio?path=")
            .expect("a relative address");
        assert!(
            encoded
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-~%".contains(&b))
        );
        assert!(encoded.ends_with(".mp3"));
        let path = encoded.replace("%2F", "/");
        let path = std::path::Path::new(&path);
        assert_eq!(path.parent(), Some(fake.audio_dir().as_path()));
        assert!(path.is_file());
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name");
        assert!(uuid::Uuid::parse_str(name).is_ok());
    }
}

#[test]
fn a_length_that_was_not_asked_for_is_reported_as_a_number() {
    let fake = Fake::start(&[]);
    let id = release(fake.addr, &json!({}));
    let item = &items(&finished(fake.addr, &id))[0];
    assert_eq!(item["metas"]["duration"], 10.0);
    assert_eq!(item["metas"]["keyscale"], "N/A");
}

#[test]
fn failed_jobs_say_why_on_one_line_and_the_server_goes_on() {
    let fake = Fake::start(&[]);
    for (caption, reason) in [
        ("device", "the device"),
        ("panic", "internal error: the engine stopped unexpectedly"),
    ] {
        let id = release(fake.addr, &json!({ "prompt": caption }));
        let entry = finished(fake.addr, &id);
        assert_eq!(
            (&entry["status"], &entry["progress_text"]),
            (&json!(2), &json!("failed"))
        );
        let item = &items(&entry)[0];
        let error = item["error"].as_str().expect("a reason");
        assert!(
            error.starts_with(reason) && !error.contains('\n'),
            "{error}"
        );
        assert_eq!(
            (&item["status"], &item["stage"]),
            (&json!(2), &json!("failed"))
        );
        assert_eq!((&item["file"], &item["metas"]), (&json!(""), &json!({})));
        let next = release(fake.addr, &json!({}));
        assert_eq!(finished(fake.addr, &next)["status"], 1);
    }
}

#[test]
fn jobs_that_need_the_language_model_fail_with_its_reason() {
    let fake = Fake::start(&[]);
    fake.steering
        .fail_lm(Error::Missing("there is none".into()));
    for body in [
        json!({"thinking": true}),
        json!({"sample_query": "x"}),
        json!({"format": 1}),
    ] {
        let entry = finished(fake.addr, &release(fake.addr, &body));
        let error = items(&entry)[0]["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(error.starts_with("5Hz LM init failed: "), "{error}");
    }
    let wanted = json!({"use_cot_caption": true, "use_cot_language": true});
    assert_eq!(
        finished(fake.addr, &release(fake.addr, &wanted))["status"],
        1
    );
}

#[test]
fn a_folder_that_cannot_be_written_fails_the_job_and_not_the_server() {
    let fake = Fake::start(&[]);
    let dir = fake.audio_dir();
    std::fs::remove_dir_all(&dir).expect("removed");
    std::fs::write(&dir, "in the way").expect("written");
    let entry = finished(fake.addr, &release(fake.addr, &json!({})));
    let error = items(&entry)[0]["error"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(error.contains("api_audio"), "{error}");
    // A folder that only went missing is made again.
    std::fs::remove_file(&dir).expect("removed");
    assert_eq!(
        finished(fake.addr, &release(fake.addr, &json!({})))["status"],
        1
    );
}

#[test]
fn questions_have_limits() {
    let fake = Fake::start(&[]);
    let ask = |n| {
        let body = json!({ "task_id_list": vec!["nobody"; n] });
        post(fake.addr, "/query_result", &body)
    };
    assert_eq!(ask(1000).data().as_array().map(Vec::len), Some(1000));
    let answer = ask(1001);
    assert_eq!(answer.status, 400);
    assert!(answer.detail().contains("1000"), "{}", answer.detail());
    let body = json!({ "task_id_list": ["x".repeat(1 << 20)] });
    let answer = post(fake.addr, "/query_result", &body);
    assert_eq!(answer.status, 413);
    assert!(answer.detail().contains("1 MiB"), "{}", answer.detail());
}

#[test]
fn results_that_are_too_large_together_are_asked_for_in_turn() {
    let fake = Fake::start(&[]);
    let lyrics = "l".repeat(100_000);
    let id = release(fake.addr, &json!({"batch_size": 1, "lyrics": lyrics}));
    finished(fake.addr, &id);
    let ask = |n| {
        let body = json!({ "task_id_list": vec![id.as_str(); n] });
        post(fake.addr, "/query_result", &body)
    };
    assert_eq!(ask(10).data().as_array().map(Vec::len), Some(10));
    let answer = ask(1000);
    assert_eq!(answer.status, 400);
    assert!(answer.detail().contains("64 MiB"), "{}", answer.detail());
}

#[test]
fn analyses_of_a_source_have_results_of_their_own() {
    let fake = Fake::start(&[]);
    let analysed = |flag: &str| {
        let entry = finished(
            fake.addr,
            &release(fake.addr, &json!({ flag: true, "seed": 5 })),
        );
        assert_eq!(entry["status"], 1, "{entry}");
        let list = items(&entry);
        assert_eq!(list.as_array().map(Vec::len), Some(1));
        list[0].clone()
    };
    let codes: String = (1..=5).map(|n| format!("<|audio_code_{n}|>")).collect();
    let extracted = analysed("extract_codes_only");
    assert_eq!(
        extracted["status_message"],
        "Audio Codes Extraction Success"
    );
    assert_eq!(
        (&extracted["audio_codes"], &extracted["metas"]),
        (&json!(codes), &json!({}))
    );
    assert_eq!(
        (&extracted["audio_paths"], &extracted["file"]),
        (&json!([]), &json!(""))
    );
    assert!(fake.steering.described().is_empty());
    let full = analysed("fullAnalysisOnly");
    assert_eq!(full["status_message"], "Full Hardware Analysis Success");
    assert_eq!(full["audio_codes"], json!(codes));
    for (name, within) in [
        ("bpm", "bpm"),
        ("keyscale", "keyscale"),
        ("timesignature", "timesignature"),
        ("duration", "duration"),
        ("prompt", "caption"),
        ("lyrics", "lyrics"),
        ("language", "language"),
    ] {
        assert!(
            !full[name].is_null() && full[name] == full["metas"][within],
            "{name} {full}"
        );
    }
    let described = fake.steering.described().pop().expect("described");
    assert_eq!(
        described.subject,
        engine::song::Subject::Codes(vec![1, 2, 3, 4, 5])
    );
    assert_eq!(described.sampling.temperature, 0.3);
    // Of several flags the extraction counts.
    let both = json!({"extract_codes_only": true, "full_analysis_only": true});
    let entry = finished(fake.addr, &release(fake.addr, &both));
    assert_eq!(
        items(&entry)[0]["status_message"],
        "Audio Codes Extraction Success"
    );
}
