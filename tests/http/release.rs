//! `POST /release_task`: content types, fields, refusals, the queue.

use engine::song::{Guidance, Method, Recording, Solver};
use serde_json::{Value, json};
use std::collections::HashSet;
use tests::client::{finished, get, items, post, query, release, send, wait};
use tests::fake::Fake;

/// Sends a body as it is; the status and the detail.
fn raw(fake: &Fake, content_type: Option<&str>, body: &str) -> (u16, String) {
    let headers: Vec<_> = content_type
        .into_iter()
        .map(|t| ("Content-Type", t))
        .collect();
    let answer = send(
        fake.addr,
        "POST",
        "/release_task",
        &headers,
        body.as_bytes(),
    );
    let detail = answer.json()["detail"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status, detail)
}

/// What reached the engine for a body.
fn made(fake: &Fake, body: &Value) -> engine::song::SongRequest {
    let before = fake.steering.seen().len();
    let id = release(fake.addr, body);
    let entry = finished(fake.addr, &id);
    assert_eq!(entry["status"], 1, "{entry}");
    fake.steering.seen().swap_remove(before)
}

#[test]
fn the_answer() {
    let fake = Fake::start(&[]);
    let data = post(fake.addr, "/release_task", &json!({})).data();
    let id = data["task_id"].as_str().unwrap_or_default();
    let parsed = uuid::Uuid::parse_str(id).expect("an identifier");
    assert_eq!(
        (parsed.get_version_num(), parsed.to_string().as_str()),
        (4, id)
    );
    assert_eq!(
        data,
        json!({"task_id": id, "status": "queued", "queue_position": 1})
    );
}

#[test]
fn content_types() {
    let fake = Fake::start(&[]);
    const OK: (u16, &str) = (200, "");
    const MALFORMED: (u16, &str) = (400, "Malformed JSON payload");
    const NO_OBJECT: (u16, &str) = (400, "JSON payload must be an object");
    const HINT: (u16, &str) = (
        400,
        "Invalid JSON body (hint: set 'Content-Type: application/json')",
    );
    for (content_type, body, (status, detail)) in [
        (Some("application/json"), "{}", OK),
        (Some("Application/JSON; charset=utf-8"), "{}", OK),
        (Some("application/problem+json"), "{}", OK),
        (Some("application/json"), "", MALFORMED),
        (Some("application/json"), "{", MALFORMED),
        (Some("application/json"), "{\"a\": \"\u{0}", MALFORMED),
        (Some("application/json"), "[]", NO_OBJECT),
        (Some("application/json"), "null", NO_OBJECT),
        (Some("application/x-www-form-urlencoded"), "prompt=a", OK),
        (Some("application/x-www-form-urlencoded"), "", OK),
        (None, "{}", OK),
        (None, " \r\n {\"prompt\": \"x\"}", OK),
        (None, "{", HINT),
        (None, "[1]", NO_OBJECT),
        (None, "prompt=a", OK),
        (Some("text/plain"), "{}", OK),
        (Some("text/plain"), "prompt=a", OK),
    ] {
        let got = raw(&fake, content_type, body);
        assert_eq!(
            got,
            (status, detail.to_owned()),
            "{content_type:?} {body:?}"
        );
    }
    const USE: &str =
        "use application/json, application/x-www-form-urlencoded, or multipart/form-data";
    for (content_type, body, shown) in [
        (None, "", "(missing)"),
        (None, "x", "(missing)"),
        (Some("Text/XML"), "<a/>", "text/xml"),
    ] {
        let expected = format!("Unsupported Content-Type: {shown}; {USE}");
        assert_eq!(raw(&fake, content_type, body), (415, expected));
    }
}

#[test]
fn forms_and_which_of_repeated_keys_counts() {
    let fake = Fake::start(&[]);
    for (content_type, caption) in [
        (Some("application/x-www-form-urlencoded"), "b c"),
        (None, "a"),
    ] {
        let body = "prompt=a&batch_size=1&prompt=b+c&lyrics=";
        assert_eq!(raw(&fake, content_type, body).0, 200);
        let seen = wait("the song", || {
            fake.steering.seen().pop().filter(|s| s.caption == caption)
        });
        assert_eq!(seen.seeds.len(), 1);
    }
}

#[test]
fn every_value_reaches_the_engine() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH2", "acestep-v15-base")]);
    let request = made(
        &fake,
        &json!({
            "model": "acestep-v15-base", "caption": "calm piano", "lyrics": "la la",
            "vocalLanguage": "de", "bpm": "90", "keyScale": "C Major", "timesignature": "3/4",
            "duration": "33.5", "inferenceSteps": 40, "guidanceScale": 4.5, "seed": "5,6",
            "useRandomSeed": "false", "batchSize": 2, "shift": 2, "inferMethod": "sde",
            "timesteps": "0.9,0.5", "use_adg": 1, "cfg_interval_start": 0.1,
            "cfg_interval_end": 0.9, "sampler_mode": "heun", "dcw_enabled": false,
            "latent_shift": 0.1, "latent_rescale": 1.1, "normalization_db": -3,
            "fade_in_duration": 1, "fade_out_duration": 2, "velocity_norm_threshold": 2,
            "velocity_ema_factor": 0.25, "title": "ignored", "mp3_bitrate": "192k",
        }),
    );
    assert_eq!(request.model, "acestep-v15-base");
    assert_eq!(
        (request.caption.as_str(), request.lyrics.as_str()),
        ("calm piano", "la la")
    );
    assert_eq!(request.language, "de");
    assert_eq!(request.metas.bpm, Some(90));
    assert_eq!(request.metas.key_scale.as_deref(), Some("C Major"));
    assert_eq!(request.metas.time_signature.as_deref(), Some("3"));
    assert_eq!(
        (request.duration_s, request.seeds),
        (Some(33.5), vec![5, 6])
    );
    let s = request.sampling;
    assert_eq!((s.steps, s.shift, s.guidance_scale), (40, 2.0, 4.5));
    assert_eq!(
        (s.method, s.solver, s.guidance),
        (Method::Sde, Solver::Heun, Guidance::Adg)
    );
    assert_eq!(
        (s.timesteps, s.guidance_interval),
        (Some(vec![0.9, 0.5]), (0.1, 0.9))
    );
    assert_eq!(
        (s.dcw, s.velocity_norm_threshold, s.velocity_ema_factor),
        (None, 2.0, 0.25)
    );
    let o = request.output;
    assert_eq!(
        (o.latent_shift, o.latent_rescale, o.normalize_db),
        (0.1, 1.1, Some(-3.0))
    );
    assert_eq!((o.fade_in_s, o.fade_out_s), (1.0, 2.0));
}

#[test]
fn an_empty_object_is_a_request_with_the_documented_defaults() {
    let fake = Fake::start(&[]);
    let request = made(&fake, &json!({}));
    assert_eq!(request.model, "acestep-v15-turbo");
    assert_eq!(
        (request.caption.as_str(), request.lyrics.as_str()),
        ("", "[Instrumental]")
    );
    assert_eq!((request.language.as_str(), request.seeds.len()), ("en", 2));
    assert_eq!((request.sampling.steps, request.sampling.shift), (8, 3.0));
    assert_ne!(request.seeds[0], request.seeds[1]);
    assert!(request.seeds.iter().all(|s| *s <= u64::from(u32::MAX)));
}

#[test]
fn wrong_types_fall_back_and_wrong_values_are_noted() {
    let fake = Fake::start(&[]);
    let id = release(
        fake.addr,
        &json!({
            "batch_size": "many", "shift": [], "bpm": 999, "inference_steps": 500,
            "use_random_seed": "maybe", "seed": 3, "audio_duration": "long", "prompt": 5,
        }),
    );
    let item = &items(&finished(fake.addr, &id))[0];
    let info = item["generation_info"].as_str().unwrap_or_default();
    assert!(
        info.contains("bpm \"999\"") && info.contains("inference_steps 500"),
        "{info}"
    );
    let seen = fake.steering.seen().pop().expect("one song");
    assert_eq!(
        (seen.seeds.len(), seen.sampling.steps, seen.sampling.shift),
        (2, 20, 3.0)
    );
    // "maybe" is false, so the seed counts, for the first item.
    assert_eq!((seen.seeds[0], seen.caption.as_str()), (3, "5"));
    assert_eq!(item["metas"]["bpm"], "N/A");
}

#[test]
fn refused_with_the_field_named() {
    let fake = Fake::start(&[]);
    for (body, named) in [
        (json!({"lm_backend": "tpu"}), "lm_backend"),
        (json!({"chunk_mask_mode": "x"}), "chunk_mask_mode"),
        (json!({"repaint_mode": "x"}), "repaint_mode"),
        (json!({"repaint_strength": "1.5"}), "repaint_strength"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"seed": [1]}), "seed"),
        (json!({"track_classes": [1]}), "track_classes"),
        (json!({"task_type": "remix"}), "task_type"),
        (json!({"audio_format": "aiff"}), "audio_format"),
        (json!({"param_obj": {"repaint_mode": "x"}}), "repaint_mode"),
        (
            json!({"cfg_interval_start": 0.9, "cfg_interval_end": 0.1}),
            "cfg_interval",
        ),
        (
            json!({"repainting_start": 5, "repainting_end": 2}),
            "repainting_end",
        ),
    ] {
        let answer = post(fake.addr, "/release_task", &body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.detail().contains(named),
            "{body}: {}",
            answer.detail()
        );
    }
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["total"], 0);
}

#[test]
fn paths_are_checked_under_every_name_and_in_every_source() {
    let fake = Fake::start(&[]);
    const ABSOLUTE: &str = "absolute audio file paths are not allowed";
    const TRAVERSAL: &str = "path traversal in audio file paths is not allowed";
    for name in [
        "src_audio_path",
        "ctxAudioPath",
        "referenceAudioPath",
        "ref_audio_path",
    ] {
        for (path, detail) in [
            ("/etc/passwd", ABSOLUTE),
            ("../../../../../../../../../../../../x", TRAVERSAL),
        ] {
            for body in [
                json!({ name: path }),
                json!({ "param_obj": { name: path } }),
                json!({ "metas": json!({ name: path }).to_string() }),
            ] {
                let answer = post(fake.addr, "/release_task", &body);
                assert_eq!(
                    (answer.status, answer.detail().as_str()),
                    (400, detail),
                    "{body}"
                );
            }
            let (status, got) = raw(&fake, None, &format!("{name}={path}"));
            assert_eq!((status, got.as_str()), (400, detail));
        }
    }
    // Plain generation ignores a source that it may read, and looks for no file.
    let temporary = std::env::temp_dir().join("no-such-file.wav");
    made(&fake, &json!({ "src_audio_path": temporary }));
    made(&fake, &json!({ "src_audio_path": "  " }));
}

#[test]
fn folders_that_the_operator_allows_are_sources() {
    // Not a temporary folder, where everything may be read anyway.
    let outside = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let [allowed, other] = ["music", "music_too"].map(|name| outside.path().join(name));
    for dir in [&allowed, &other] {
        std::fs::create_dir(dir).expect("made");
    }
    let dirs = format!("/nowhere,{}", allowed.display());
    let fake = Fake::start(&[("ACESTEP_ALLOWED_AUDIO_DIRS", &dirs)]);
    let file = allowed.join("song.wav");
    let source = |path: &std::path::Path| {
        post(
            fake.addr,
            "/release_task",
            &json!({"task_type": "cover", "src_audio_path": path}),
        )
    };
    assert_eq!(source(&file).status, 200);
    let seen = wait("the song", || fake.steering.seen().pop());
    let real = file.parent().and_then(|dir| dir.canonicalize().ok());
    let real = real.expect("a real folder").join("song.wav");
    assert_eq!(seen.source, Some(Recording::File(real)));
    assert_eq!(source(&other.join("song.wav")).status, 400);
}

#[test]
fn seeds() {
    let fake = Fake::start(&[]);
    for (body, fixed) in [
        (json!({"seed": 42, "use_random_seed": false}), &[42u64][..]),
        (
            json!({"seed": "1, 2,-1,,x", "use_random_seed": false}),
            &[1, 2],
        ),
        (json!({"seed": "7,8,9,10", "use_random_seed": "0"}), &[7, 8]),
        (json!({"seed": 42}), &[]),
        (json!({"seed": -1, "use_random_seed": false}), &[]),
    ] {
        let id = release(fake.addr, &body);
        let items = items(&finished(fake.addr, &id));
        let text = items[0]["seed_value"].as_str().expect("a text").to_owned();
        let seeds: Vec<u64> = text
            .split(',')
            .map(|s| s.parse().expect("a number"))
            .collect();
        assert_eq!(seeds.len(), 2, "{text}");
        assert_eq!(&seeds[..fixed.len()], fixed, "{body}");
        assert!(!seeds[fixed.len()..].contains(&42));
        assert_eq!(items[1]["seed_value"], text.as_str());
    }
}

#[test]
fn models_by_name() {
    let fake = Fake::start(&[("ACESTEP_CONFIG_PATH2", "acestep-v15-base")]);
    for (asked, used) in [
        (json!(null), "acestep-v15-turbo"),
        (json!("acestep-v15-base"), "acestep-v15-base"),
        (json!("acestep/acestep-v15-base"), "acestep-v15-base"),
        (json!("nobody-knows"), "acestep-v15-turbo"),
    ] {
        let id = release(fake.addr, &json!({ "model": asked, "batch_size": 1 }));
        assert_eq!(
            items(&finished(fake.addr, &id))[0]["dit_model"],
            used,
            "{asked}"
        );
    }
}

#[test]
fn the_queue_is_bounded_and_positions_count_what_waits() {
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "2")]);
    fake.steering.hold(true);
    let running = release(fake.addr, &json!({}));
    wait("the first job to run", || {
        (!fake.steering.seen().is_empty()).then_some(())
    });
    let position = |answer: tests::client::Answer| answer.data()["queue_position"].clone();
    assert_eq!(position(post(fake.addr, "/release_task", &json!({}))), 1);
    assert_eq!(position(post(fake.addr, "/release_task", &json!({}))), 2);
    let full = post(fake.addr, "/release_task", &json!({}));
    assert_eq!(
        (full.status, full.detail().as_str()),
        (429, "Server busy: queue is full")
    );
    let stats = get(fake.addr, "/v1/stats").data();
    assert_eq!(
        stats["jobs"],
        json!({"total": 3, "queued": 2, "running": 1, "succeeded": 0, "failed": 0})
    );
    assert_eq!(
        (&stats["queue_size"], &stats["queue_maxsize"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(stats["avg_job_seconds"], 5.0);
    assert_eq!(query(fake.addr, &running)["status"], 0);
    fake.steering.hold(false);
    wait("an empty queue", || {
        let stats = get(fake.addr, "/v1/stats").data();
        (stats["jobs"]["succeeded"] == 3 && stats["queue_size"] == 0).then_some(())
    });
    assert!(get(fake.addr, "/v1/stats").data()["avg_job_seconds"].as_f64() < Some(5.0));
}

#[test]
fn parallel_clients_each_get_their_own_song() {
    let fake = Fake::start(&[
        ("ACESTEP_QUEUE_MAXSIZE", "1000"),
        ("ACESTEP_API_WORKERS", "2"),
    ]);
    let results: Vec<(String, Value)> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let addr = fake.addr;
            scope.spawn(move || {
                let caption = format!("song {number}");
                let id = release(addr, &json!({"prompt": caption, "batch_size": 1}));
                (id.clone(), items(&finished(addr, &id))[0]["prompt"].clone())
            })
        };
        let threads: Vec<_> = (0..32).map(client).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("a client ends"))
            .collect()
    });
    let ids: HashSet<&String> = results.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 32);
    for (number, (_, prompt)) in results.iter().enumerate() {
        assert_eq!(*prompt, format!("song {number}").as_str());
    }
}

#[test]
fn concurrent_requests_never_overshoot_the_bound() {
    let fake = Fake::start(&[("ACESTEP_QUEUE_MAXSIZE", "5")]);
    fake.steering.hold(true);
    release(fake.addr, &json!({}));
    wait("the first job to run", || {
        (!fake.steering.seen().is_empty()).then_some(())
    });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let client = || scope.spawn(|| post(fake.addr, "/release_task", &json!({})).status);
        let threads: Vec<_> = (0..20).map(|_| client()).collect();
        threads
            .into_iter()
            .map(|t| t.join().expect("a client ends"))
            .collect()
    });
    let taken = statuses.iter().filter(|s| **s == 200).count();
    assert_eq!(
        (taken, statuses.iter().filter(|s| **s == 429).count()),
        (5, 15)
    );
    assert_eq!(get(fake.addr, "/v1/stats").data()["jobs"]["total"], 6);
    fake.steering.hold(false);
}

#[test]
fn long_texts_are_refused_with_their_name() {
    let fake = Fake::start(&[]);
    for name in ["prompt", "lyrics", "instruction"] {
        let answer = post(
            fake.addr,
            "/release_task",
            &json!({ name: "x".repeat(100_001) }),
        );
        assert_eq!(answer.status, 400);
        assert!(answer.detail().starts_with(name), "{}", answer.detail());
    }
}
