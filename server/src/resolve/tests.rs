//! The resolver per family, caller and rule.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::raw::Sources;
use engine::song::{Guidance, Method, Solver};
use engine::text::prompt;
use serde_json::{Value, json};

fn facts(is_turbo: bool) -> ModelFacts {
    let name = if is_turbo {
        "acestep-v15-turbo"
    } else {
        "acestep-v15-base"
    };
    ModelFacts {
        name: name.into(),
        is_turbo,
    }
}

fn raw(body: Value) -> RawRequest {
    RawRequest::read(&Sources::new(body.as_object().unwrap().clone())).unwrap()
}

pub(super) fn http(is_turbo: bool, body: Value) -> Result<Resolved, Refusal> {
    resolve(&raw(body), &facts(is_turbo), Caller::Http, &mut || 7)
}

pub(super) fn cli(is_turbo: bool, body: Value) -> Result<Resolved, Refusal> {
    resolve(&raw(body), &facts(is_turbo), Caller::CommandLine, &mut || 7)
}

#[test]
fn defaults_per_family_and_caller() {
    for (is_turbo, caller, steps, shift, guidance) in [
        (true, Caller::Http, 8, 3.0, 1.0),
        (false, Caller::Http, 8, 3.0, 7.0),
        (true, Caller::CommandLine, 8, 3.0, 1.0),
        (false, Caller::CommandLine, 50, 1.0, 7.0),
    ] {
        let r = resolve(&raw(json!({})), &facts(is_turbo), caller, &mut || 7).unwrap();
        let s = &r.song.sampling;
        assert_eq!(
            (s.steps, s.shift, s.guidance_scale),
            (steps, shift, guidance)
        );
        assert_eq!(
            (s.method, s.solver, s.guidance),
            (Method::Ode, Solver::Euler, Guidance::Apg)
        );
        assert_eq!(s.guidance_interval, (0.0, 1.0));
        let dcw = s.dcw.as_ref().unwrap();
        assert_eq!(
            (dcw.mode, dcw.low, dcw.high),
            (engine::program::DcwMode::Double, 0.05, 0.02)
        );
        assert_eq!(r.song.seeds, [7, 7]);
        assert_eq!(r.song.output, Output::default());
        assert_eq!(r.song.lyrics, "[Instrumental]");
        assert_eq!(r.song.language, "en");
        assert_eq!(r.song.instruction, prompt::TEXT2MUSIC);
        assert_eq!(r.format, AudioFormat::Mp3(Mp3::default()));
        assert_eq!((r.notes.len(), r.lm), (0, LmNeed::IfLoaded));
    }
}

/// Numbers out of range: clamped with a note over HTTP, refused with the name on the command line.
#[test]
fn numbers_out_of_range() {
    type Get = fn(&Resolved) -> f64;
    let steps: Get = |r| r.song.sampling.steps as f64;
    let shift: Get = |r| r.song.sampling.shift;
    let guidance: Get = |r| f64::from(r.song.sampling.guidance_scale);
    let duration: Get = |r| r.song.duration_s.unwrap_or(-1.0);
    let batch: Get = |r| r.song.seeds.len() as f64;
    let start: Get = |r| f64::from(r.song.sampling.guidance_interval.0);
    let cases: &[(bool, &str, f64, Get, f64)] = &[
        (true, "inference_steps", 0.0, steps, 1.0),
        (true, "inference_steps", 21.0, steps, 20.0),
        (false, "inference_steps", 201.0, steps, 200.0),
        (true, "shift", 0.0, shift, 1.0),
        (true, "shift", -3.0, shift, 1.0),
        (false, "shift", 9.0, shift, 5.0),
        (false, "guidance_scale", 31.0, guidance, 30.0),
        (true, "audio_duration", 3.0, duration, 10.0),
        (true, "audio_duration", 601.0, duration, 600.0),
        (true, "batch_size", 0.0, batch, 1.0),
        (true, "batch_size", 9.0, batch, 8.0),
        (false, "cfg_interval_start", -1.0, start, 0.0),
    ];
    for (is_turbo, name, value, get, expected) in cases {
        let r = http(*is_turbo, json!({ *name: value })).unwrap();
        assert_eq!(get(&r), *expected, "{name} {value}");
        assert!(
            r.notes.iter().any(|n| n.starts_with(name)),
            "{name}: {:?}",
            r.notes
        );
        let refusal = cli(*is_turbo, json!({ *name: value })).unwrap_err();
        assert!(refusal.0.starts_with(&checks::flag(name)), "{refusal}");
    }
}

#[test]
fn numbers_at_the_limits_are_taken() {
    for (is_turbo, body) in [
        (
            true,
            json!({"inference_steps": 20, "audio_duration": 10, "batch_size": 8, "bpm": 30}),
        ),
        (
            false,
            json!({"inference_steps": 200, "audio_duration": 600, "shift": 5, "bpm": 300}),
        ),
    ] {
        assert_eq!(
            http(is_turbo, body.clone()).unwrap().notes,
            Vec::<String>::new()
        );
        cli(is_turbo, body).unwrap();
    }
}

#[test]
fn guidance_below_one_is_none_and_turbo_has_none() {
    let scale = |is_turbo, x: f64| {
        let r = http(is_turbo, json!({ "guidance_scale": x })).unwrap();
        // A negative strength is limited to none, and said.
        assert_eq!(r.notes.len(), usize::from(x < 0.0));
        r.song.sampling.guidance_scale
    };
    assert_eq!(scale(false, 0.5), 1.0);
    assert_eq!(scale(false, -2.0), 1.0);
    assert_eq!(scale(true, 12.0), 1.0);
    assert_eq!(scale(false, 4.5), 4.5);
}

#[test]
fn turbo_takes_the_nearest_shift_it_knows() {
    let r = http(true, json!({ "shift": 2.6 })).unwrap();
    assert_eq!(r.song.sampling.shift, 3.0);
    assert_eq!(r.notes.len(), 1);
    let base = http(false, json!({ "shift": 2.6 })).unwrap();
    assert_eq!((base.song.sampling.shift, base.notes.len()), (2.6, 0));
}

#[test]
fn the_command_line_refuses_slips() {
    for body in [
        json!({"guidance_scale": -1}),
        json!({"timesteps": ","}),
        json!({"timesteps": "0.5,0.5"}),
        json!({"seed": "1,2", "use_random_seed": false, "batch_size": 1}),
        json!({"lm_temperature": 9}),
    ] {
        assert!(cli(false, body.clone()).is_err(), "{body}");
        assert!(http(false, body.clone()).is_ok(), "{body}");
    }
}

#[test]
fn a_duration_that_is_not_positive_is_not_given() {
    for x in [json!(0), json!(-1), json!(null), json!("")] {
        assert_eq!(
            http(true, json!({ "duration": x }))
                .unwrap()
                .song
                .duration_s,
            None
        );
    }
    assert!(cli(true, json!({"duration": 0})).is_err());
}

#[test]
fn bpm_outside_its_range_is_not_given() {
    for bpm in [29, 301, 0, -5] {
        let r = http(true, json!({ "bpm": bpm })).unwrap();
        assert_eq!((r.song.metas.bpm, r.echo.bpm), (None, None));
        assert!(r.notes[0].starts_with("bpm"));
        assert!(cli(true, json!({ "bpm": bpm })).is_err());
    }
    assert_eq!(
        http(true, json!({"bpm": "120.0"})).unwrap().song.metas.bpm,
        Some(120)
    );
}

#[test]
fn texts_that_mean_something() {
    let r = http(
        false,
        json!({"lyrics": "[INST]", "time_signature": "6/8", "key": "Am", "language": "DE",
               "infer_method": "SDE", "sampler_mode": "heun", "use_adg": 1, "format": false,
               "audio_format": " WAV32 "}),
    )
    .unwrap();
    assert_eq!(r.song.lyrics, "[Instrumental]");
    assert_eq!(r.song.metas.time_signature.as_deref(), Some("6"));
    assert_eq!(r.echo.time_signature, "6/8");
    assert_eq!(r.song.metas.key_scale.as_deref(), Some("Am"));
    assert_eq!(r.song.language, "de");
    assert_eq!(r.song.sampling.method, Method::Sde);
    assert_eq!(r.song.sampling.solver, Solver::Heun);
    assert_eq!(r.song.sampling.guidance, Guidance::Adg);
    assert_eq!(r.format, AudioFormat::Wav32);
}

#[test]
fn texts_that_mean_nothing_fall_back_or_are_refused() {
    for (name, value) in [
        ("vocal_language", "klingon"),
        ("time_signature", "five"),
        ("infer_method", "magic"),
        ("sampler_mode", "rk4"),
        ("dcw_mode", "x"),
        ("dcw_wavelet", "x"),
        ("timesteps", "0.9,zebra"),
    ] {
        let r = http(true, json!({ name: value })).unwrap();
        assert!(r.notes[0].starts_with(name), "{:?}", r.notes);
        let refusal = cli(true, json!({ name: value })).unwrap_err();
        assert!(refusal.0.starts_with(&checks::flag(name)), "{refusal}");
    }
}

#[test]
fn mp3_settings() {
    let r = http(true, json!({"mp3_bitrate": "320k"})).unwrap();
    assert_eq!(
        r.format,
        AudioFormat::Mp3(Mp3::new("320k", 48_000).unwrap())
    );
    for body in [
        json!({"mp3_bitrate": "11k"}),
        json!({"mp3_sample_rate": 12345}),
    ] {
        let r = http(true, body.clone()).unwrap();
        assert_eq!(r.format, AudioFormat::Mp3(Mp3::default()));
        assert!(r.notes[0].starts_with("mp3_bitrate"));
        assert!(cli(true, body).is_err());
    }
    // Settings of a format that is not asked for do not matter.
    assert!(
        http(true, json!({"mp3_bitrate": "x", "audio_format": "wav"}))
            .unwrap()
            .notes
            .is_empty()
    );
}

#[test]
fn bit_rates_of_opus_and_aac() {
    use engine::audio::{AAC_DEFAULT_KBPS, AAC_KBPS, OPUS_DEFAULT_KBPS, OPUS_KBPS};
    type Make = fn(u16) -> AudioFormat;
    for (name, make, range, default) in [
        (
            "opus",
            AudioFormat::Opus as Make,
            OPUS_KBPS,
            OPUS_DEFAULT_KBPS,
        ),
        ("aac", AudioFormat::Aac as Make, AAC_KBPS, AAC_DEFAULT_KBPS),
    ] {
        let field = format!("{name}_bitrate");
        let body = |said: &str| json!({"audio_format": name, &field: said});
        let plain = http(true, json!({"audio_format": name})).unwrap();
        assert_eq!(plain.format, make(default));
        for said in ["96k", "96", " 96K"] {
            let r = http(true, body(said)).unwrap();
            assert_eq!((r.format, r.notes.len()), (make(96), 0), "{said}");
        }
        for (said, kbps) in [
            ("1k", *range.start()),
            ("99999", *range.end()),
            ("fast", default),
        ] {
            let r = http(true, body(said)).unwrap();
            assert_eq!(r.format, make(kbps), "{said}");
            assert!(r.notes[0].starts_with(&field), "{:?}", r.notes);
            let refusal = cli(true, body(said)).unwrap_err();
            assert!(refusal.0.starts_with("--bitrate"), "{refusal}");
        }
    }
}

#[test]
fn custom_timesteps() {
    let times = |text: &str| {
        http(true, json!({ "timesteps": text }))
            .unwrap()
            .song
            .sampling
            .timesteps
    };
    assert_eq!(times("0.97, 0.76,,0.5,0"), Some(vec![0.97, 0.76, 0.5, 0.0]));
    assert_eq!(times("[1.0,0.5]"), Some(vec![1.0, 0.5]));
    for ignored in ["", " , ", "a", "0.5,0.9", "1.5,0.5", "nan", "-1", "0"] {
        assert_eq!(times(ignored), None, "{ignored}");
    }
    assert_eq!(times(&vec!["0.5"; 30].join(",")), None);
}

#[test]
fn refused_for_every_caller() {
    for (body, named) in [
        (json!({"lm_backend": "tpu"}), "lm_backend"),
        (json!({"chunk_mask_mode": "x"}), "chunk_mask_mode"),
        (json!({"repaint_mode": "wild"}), "repaint_mode"),
        (json!({"repaint_strength": 1.5}), "repaint_strength"),
        (json!({"repaint_strength": -0.1}), "repaint_strength"),
        (json!({"task_type": "remix"}), "task_type"),
        (json!({"audio_format": "aiff"}), "audio_format"),
        (
            json!({"cfg_interval_start": 0.8, "cfg_interval_end": 0.2}),
            "cfg_interval_end",
        ),
        (
            json!({"repainting_start": 9, "repainting_end": 3}),
            "repainting_start",
        ),
        (json!({"task_type": "remix"}), "task_type"),
    ] {
        for refusal in [http(true, body.clone()), cli(true, body)] {
            let text = refusal.unwrap_err().0;
            assert!(text.contains(named), "{text}");
        }
    }
}

#[test]
fn repainting_ends_that_mean_the_end_are_taken() {
    for end in [json!(null), json!(0), json!(-1), json!(12.5)] {
        http(true, json!({"repainting_start": 9, "repainting_end": end})).unwrap();
    }
}

#[test]
fn levels_and_fades() {
    let output = |body| http(true, body).unwrap().song.output;
    assert_eq!(
        output(json!({"enable_normalization": false})).normalize_db,
        None
    );
    assert_eq!(output(json!({"normalization_db": 3})).normalize_db, None);
    assert_eq!(
        output(json!({"normalization_db": -6})).normalize_db,
        Some(-6.0)
    );
    assert_eq!(output(json!({"fade_in_duration": "1.5"})).fade_in_s, 1.5);
    assert_eq!(
        http(true, json!({"dcw_enabled": 0}))
            .unwrap()
            .song
            .sampling
            .dcw,
        None
    );
}

#[test]
fn texts_that_are_kept_have_a_limit() {
    for name in [
        "prompt",
        "lyrics",
        "instruction",
        "key_scale",
        "time_signature",
    ] {
        let longest = "é".repeat(checks::TEXT_LIMIT);
        assert!(http(true, json!({ name: longest })).is_ok(), "{name}");
        let body = json!({ name: longest + "x" });
        let refusal = http(true, body.clone()).unwrap_err();
        assert!(refusal.0.starts_with(name), "{refusal}");
        let refusal = cli(true, body).unwrap_err();
        assert!(refusal.0.starts_with(&checks::flag(name)), "{refusal}");
    }
}
