//! The binary from outside, where the language model has a part: planned songs, descriptions,
//! audio codes, refusals.

mod binary;

use binary::{acestep, run, stderr, with_demo};
use serde_json::Value;
use std::path::Path;

/// What a successful run printed as JSON.
fn json(dir: &Path, args: &[&str]) -> Value {
    let output = run(dir, &[args, &["--json", "--threads=1"]].concat());
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {text}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

/// What a run that was refused said.
fn refusal(dir: &Path, args: &[&str]) -> String {
    let output = run(dir, args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

const KEPT: [&str; 14] = [
    "generate",
    "--prompt",
    "upbeat pop",
    "--bpm",
    "97",
    "--key",
    "F# minor",
    "--time-signature",
    "3",
    "--language",
    "it",
    "--duration",
    "10",
    "--steps=2",
];

#[test]
fn a_planned_song_and_the_same_from_its_codes() {
    let (dir, _) = with_demo();
    let dir = dir.path();
    let planning = [
        "--thinking",
        "--no-cot-caption",
        "--no-cot-language",
        "--seed=1,2",
        "--batch-size=2",
        "--codes-out=codes.txt",
    ];
    let report = json(dir, &[&KEPT[..], &planning].concat());
    let plan = &report["plan"];
    assert_eq!(plan["codes"], serde_json::json!([50, 50]));
    assert_eq!(plan["caption"], "upbeat pop");
    assert_eq!(
        (&plan["bpm"], &plan["key_scale"]),
        (&97.into(), &"F# minor".into())
    );
    assert_eq!(
        (&plan["time_signature"], &plan["vocal_language"]),
        (&"3".into(), &"it".into())
    );
    assert_eq!(
        (&plan["duration"], &plan["lm"]),
        (&10.0.into(), &"acestep-5Hz-lm-0.6B".into())
    );
    assert!(plan["codes_s"].as_f64().is_some_and(|s| s > 0.0), "{plan}");
    let read = |name: &str| std::fs::read(dir.join(name)).expect("a file");
    assert_ne!(read("codes-1.txt"), read("codes-2.txt"));

    let again = ["--codes=codes-2.txt", "--seed=2", "--out=again.wav"];
    let report = json(dir, &[&KEPT[..], &again].concat());
    assert_eq!(report["plan"]["codes"], serde_json::json!([50]));
    assert_eq!(report["plan"]["lm"], Value::Null);
    assert!(read("again.wav") == read("song-2.wav"), "the codes decide");
    let plain = ["--seed=2", "--out=plain.wav"];
    assert_eq!(
        json(dir, &[&KEPT[..], &plain].concat())["plan"],
        Value::Null
    );
    assert!(read("plain.wav") != read("again.wav"));
}

#[test]
fn what_is_open_is_planned() {
    let (dir, _) = with_demo();
    let song = [
        "generate",
        "--prompt=pop",
        "--steps=1",
        "--seed=5",
        "--duration=10",
    ];
    let plan = |more: &[&str]| json(dir.path(), &[&song, more].concat())["plan"].clone();
    let planned = plan(&["--thinking"]);
    let bpm = planned["bpm"].as_u64().unwrap_or_default();
    assert!((30..=300).contains(&bpm), "{planned}");
    assert!(planned["key_scale"].is_string() && planned["time_signature"].is_string());
    assert_ne!(planned["caption"], "pop");
    assert_eq!(plan(&["--thinking"])["caption"], planned["caption"]);
    assert_ne!(
        plan(&["--thinking", "--lm-temperature=0"])["caption"],
        planned["caption"]
    );
    // Naming the model is enough to have the metadata completed, and nothing more.
    let named = plan(&["--lm=acestep-5Hz-lm-0.6B", "--no-cot-caption"]);
    assert_eq!(named["codes"], serde_json::json!([]));
    assert!(
        named["caption"] == "pop" && named["bpm"].is_u64(),
        "{named}"
    );
    let open = plan(&["--lm=acestep-5Hz-lm-0.6B", "--no-cot-metas"]);
    assert!(open["bpm"].is_null(), "{open}");
    assert_ne!(plan(&["--use-format"])["caption"], "pop");
}

#[test]
fn a_song_from_a_wish() {
    let (dir, _) = with_demo();
    let song = [
        "generate",
        "--sample-query=a sea shanty",
        "--steps=1",
        "--duration=10",
        "--seed=1",
    ];
    let plan = json(dir.path(), &song)["plan"].clone();
    assert!(
        plan["caption"].as_str().is_some_and(|c| !c.is_empty()),
        "{plan}"
    );
    assert_ne!(plan["lyrics"], "[Instrumental]");
    assert_eq!(plan["duration"], 10.0);
}

#[test]
fn texts_are_rewritten() {
    let (dir, _) = with_demo();
    let texts = ["format", "--prompt=pop", "--lyrics=la la", "--seed=4"];
    let with = |more: &[&str]| json(dir.path(), &[&texts, more].concat());
    let known = [
        "--bpm=97",
        "--key=A minor",
        "--time-signature=6/8",
        "--language=fr",
        "--duration=33",
    ];
    let fixed = with(&known);
    assert_eq!(
        (&fixed["bpm"], &fixed["key_scale"]),
        (&97.into(), &"A minor".into())
    );
    assert_eq!(
        (&fixed["time_signature"], &fixed["duration"]),
        (&"6".into(), &33.0.into())
    );
    assert_eq!(fixed["vocal_language"], "fr");
    let first = with(&[]);
    assert!(
        first["bpm"].is_u64() && first["duration"].is_f64(),
        "{first}"
    );
    assert!(first["caption"].is_string() && first["lyrics"].is_string());
    assert_eq!(with(&[])["caption"], first["caption"]);
    assert_ne!(with(&["--temperature=0"])["caption"], first["caption"]);
    let shown = run(dir.path(), &texts);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in [
        "caption: ",
        "bpm: ",
        "key: ",
        "language: ",
        "lyrics:\n",
        "seed 4, ",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    let is_command = |c: char| c.is_control() && c != '\n' && c != '\t';
    assert!(!text.contains(is_command), "{text:?}");
}

#[test]
fn songs_are_invented_in_words() {
    let (dir, _) = with_demo();
    let wish = ["sample", "--query=a slow waltz", "--seed=4"];
    let with = |more: &[&str]| json(dir.path(), &[&wish, more].concat());
    let first = with(&["--language=en"]);
    assert_eq!(
        (&first["vocal_language"], &first["instrumental"]),
        (&"en".into(), &false.into())
    );
    assert!(
        first["caption"].is_string() && first["bpm"].is_u64(),
        "{first}"
    );
    let silent = with(&["--instrumental"]);
    assert!(silent["instrumental"] == true && silent["lyrics"].is_string());
    assert_ne!(silent["caption"], first["caption"]);
    let loud = acestep(dir.path())
        .args(wish)
        .arg("--constrained-debug")
        .output();
    let loud = loud.expect("the program starts");
    assert!(stderr(&loud).lines().count() > 100, "{}", stderr(&loud));
}

#[test]
fn codes_are_understood() {
    let (dir, _) = with_demo();
    let dir = dir.path();
    std::fs::write(
        dir.join("codes.txt"),
        "<|audio_code_1|> <|audio_code_2047|>\n",
    )
    .expect("written");
    let ask = |input: &str| json(dir, &["understand", input, "--seed=1"]);
    let numbers = ask("1, 2047");
    assert_eq!(
        (&numbers["codes"], &numbers["seconds_of_codes"]),
        (&2.into(), &0.4.into())
    );
    assert!(
        numbers["bpm"].is_u64() && numbers["caption"].is_string(),
        "{numbers}"
    );
    for input in ["codes.txt", "<|audio_code_1|><|audio_code_2047|>"] {
        assert_eq!(ask(input)["caption"], numbers["caption"], "{input}");
    }
    assert_ne!(ask("1,2")["caption"], numbers["caption"]);
}

#[test]
fn a_recording_is_understood_as_its_codes() {
    let (dir, _) = with_demo();
    let dir = dir.path();
    let song = [
        "generate",
        "--prompt=pop",
        "--steps=1",
        "--seed=5",
        "--duration=10",
    ];
    json(dir, &song);
    let heard = json(
        dir,
        &[
            "understand",
            "song.wav",
            "--seed=1",
            "--codes-out=codes.txt",
        ],
    );
    assert_eq!(
        (&heard["codes"], &heard["seconds_of_codes"]),
        (&50.into(), &10.0.into())
    );
    let read = json(dir, &["understand", "codes.txt", "--seed=1"]);
    assert_eq!(read["caption"], heard["caption"]);
    // The codes can be made music of again.
    json(dir, &[&song[..], &["--codes=codes.txt"]].concat());

    std::fs::write(dir.join("words.txt"), "la la").expect("written");
    let text = refusal(dir, &["understand", "words.txt"]);
    assert!(text.contains("words.txt"), "{text}");
    let text = refusal(dir, &["understand", "song.wav", "--model=nobody"]);
    assert!(text.contains("nobody"), "{text}");
}

/// Arguments, and what the refusal must name.
const WRONG: &[(&[&str], &str)] = &[
    (&["generate", "--prompt=x", "--lm-top-k=5"], "--thinking"),
    (
        &["generate", "--prompt=x", "--no-cot-caption"],
        "--thinking",
    ),
    (
        &[
            "generate",
            "--prompt=x",
            "--thinking",
            "--lm-temperature=2.5",
        ],
        "--lm-temperature",
    ),
    (
        &["generate", "--prompt=x", "--thinking", "--lm-cfg-scale=0"],
        "--lm-cfg-scale",
    ),
    (
        &["generate", "--prompt=x", "--thinking", "--lm-top-p=2"],
        "--lm-top-p",
    ),
    (
        &["generate", "--prompt=x", "--thinking", "--lm=nobody"],
        "nobody",
    ),
    (
        &["generate", "--prompt=x", "--thinking", "--lm-device=abacus"],
        "--lm-device",
    ),
    (
        &["generate", "--prompt=x", "--sample-query=y"],
        "--sample-query",
    ),
    (
        &["generate", "--prompt=x", "--codes-out=c.txt"],
        "--codes-out",
    ),
    (
        &[
            "generate",
            "--prompt=x",
            "--thinking",
            "--codes-out=no/c.txt",
        ],
        "--codes-out",
    ),
    (
        &["generate", "--prompt=x", "--codes=nowhere.txt"],
        "nowhere.txt",
    ),
    (&["generate", "--prompt=x", "--codes=64000"], "63999"),
    (
        &["generate", "--prompt=x", "--codes=1", "--codes=2"],
        "--codes",
    ),
    (&["format"], "--prompt"),
    (&["format", "--prompt=x", "--bpm=5"], "--bpm"),
    (
        &["format", "--prompt=x", "--temperature=3"],
        "--lm-temperature",
    ),
    (&["sample"], "--query"),
    (&["sample", "--query=x", "--language=klingon"], "--language"),
    (&["understand"], "FILE|CODES"),
    (&["understand", "music"], "neither a file nor"),
    (&["understand", "2048"], "audio code 2048 is unknown"),
];

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let (dir, tree) = with_demo();
    for (args, named) in WRONG {
        let text = refusal(dir.path(), args);
        assert!(text.contains(named), "{args:?}: {text}");
    }
    std::fs::remove_dir_all(tree.join("acestep-5Hz-lm-0.6B")).expect("removed");
    for args in [
        &["generate", "--prompt=x", "--thinking"][..],
        &["sample", "--query=x"],
    ] {
        let text = refusal(dir.path(), args);
        assert!(text.contains("acestep-5Hz-lm-"), "{args:?}: {text}");
    }
    // Nothing was written on the way.
    let list = std::fs::read_dir(dir.path()).expect("a folder");
    assert_eq!(list.count(), 1);
}
