//! `generate --requests` from outside.

mod binary;

use binary::{acestep, run, stderr, with_demo};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

fn request(more: Value) -> String {
    let mut request = json!({
        "prompt": "x", "audio_duration": 10, "inference_steps": 2, "batch_size": 1,
        "use_random_seed": false, "seed": "2", "audio_format": "wav",
    });
    for (name, value) in more.as_object().expect("an object") {
        request[name] = value.clone();
    }
    request.to_string()
}

#[test]
fn songs_of_all_good_lines_are_made_and_bad_lines_are_named() {
    let (dir, _) = with_demo();
    let lines = [
        request(json!({"batch_size": 2, "seed": "1,2"})),
        String::new(),
        "{\"prompt\": ".into(),
        request(json!({"audio_format": "flac", "guidance_scale": 99, "tempo": 3})),
        request(json!({"task_type": "cover"})),
        request(json!({"model": "acestep-v9"})),
        request(json!({"full_analysis_only": true})),
    ];
    std::fs::write(dir.path().join("songs.jsonl"), lines.join("\n")).expect("written");
    let args = [
        "generate",
        "--json",
        "--requests",
        "songs.jsonl",
        "--out",
        "take.wav",
    ];
    let output = run(dir.path(), &args);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for line in [
        "line 3: this is no JSON object",
        "line 5: ",
        "line 6: ",
        "line 7: an analysis makes no song",
        "4 of 6 songs were not made, those of line 3, 5, 6, 7",
    ] {
        assert!(said.contains(line), "{line} in {said}");
    }
    let reports = String::from_utf8_lossy(&output.stdout);
    let reports: Vec<Value> = reports
        .lines()
        .map(|line| serde_json::from_str(line).expect("an object"))
        .collect();
    let of = |number: usize| {
        let found = reports.iter().find(|report| report["line"] == number);
        found.expect("a report of every line")
    };
    assert_eq!(reports.len(), 6);
    assert_eq!(of(1)["items"][1]["file"], "take-1-2.wav");
    assert!(of(3)["error"].is_string() && of(5)["error"].is_string());
    let notes = of(4)["notes"].to_string();
    assert!(
        notes.contains("guidance_scale") && notes.contains("tempo"),
        "{notes}"
    );

    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("a song");
    assert!(read("take-1-1.wav") != read("take-1-2.wav"));
    assert!(read("take-4.flac").starts_with(b"fLaC"));
    let alone = [
        "generate",
        "--prompt",
        "x",
        "--duration",
        "10",
        "--steps",
        "2",
    ];
    let output = run(dir.path(), &[&alone[..], &["--seed", "2"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        read("take-1-2.wav") == read("song.wav"),
        "the song of its request alone"
    );
}

#[test]
fn requests_come_from_stdin_too() {
    let (dir, _) = with_demo();
    let mut child = acestep(dir.path())
        .args(["generate", "--requests", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let line = request(json!({"audio_format": "opus", "opus_bitrate": "64k"}));
    writeln!(stdin, "{line}").expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("song-1.opus"));
    assert!(dir.path().join("song-1.opus").is_file());
}

#[test]
fn what_has_no_request_in_it_is_refused() {
    let (dir, _) = with_demo();
    std::fs::write(dir.path().join("empty"), "\n \n").expect("written");
    for (args, why) in [
        (&["--requests", "nowhere"][..], "nowhere"),
        (&["--requests", "empty"], "no line"),
        (&["--requests", "empty", "--prompt", "x"], "--prompt"),
        (&["--requests", "empty", "--seed", "1"], "--seed"),
    ] {
        let output = run(dir.path(), &[&["generate"][..], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
}
