//! Finding models in a folder.
#![allow(clippy::unwrap_used)]

use super::*;
use std::fs;

#[test]
fn models_are_found_by_their_names() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "acestep-v15-base",
        "acestep-v15-turbo",
        "acestep-5Hz-lm-0.6B",
        "vae",
        "other",
    ] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("acestep-notes.txt"), "").unwrap();
    let c = Checkpoints::open(dir.path()).unwrap();
    let names: Vec<&str> = c.dits().iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["acestep-v15-base", "acestep-v15-turbo"]);
    assert_eq!(c.dit(None).unwrap().name, DEFAULT_DIT);
    assert_eq!(
        c.dit(Some("acestep-v15-base")).unwrap().name,
        "acestep-v15-base"
    );
    assert_eq!(c.lm(None).unwrap().name, "acestep-5Hz-lm-0.6B");
    assert_eq!(c.vae().unwrap(), dir.path().join("vae"));
    for error in [
        c.dit(Some("../vae")).map(|_| ()),
        c.dit(Some("acestep-v15-sft")).map(|_| ()),
        c.lm(Some("acestep-5Hz-lm-4B")).map(|_| ()),
        c.text_encoder().map(|_| ()),
        c.tokenizer().map(|_| ()),
        Checkpoints::open(&dir.path().join("nowhere")).map(|_| ()),
    ] {
        let Err(Error::Missing(text)) = error else {
            panic!("{error:?}")
        };
        assert!(text.contains("acestep checkpoint demo --out DIR"), "{text}");
        assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
    }
}

#[test]
fn without_a_turbo_model_the_first_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("acestep-v15-sft")).unwrap();
    assert_eq!(
        Checkpoints::open(dir.path())
            .unwrap()
            .dit(None)
            .unwrap()
            .name,
        "acestep-v15-sft"
    );
}

#[test]
fn a_diffusers_pipeline_is_a_folder_of_one_model() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ACE-Step-v1-5-turbo");
    for part in [
        "transformer",
        "condition_encoder",
        "text_encoder",
        "tokenizer",
        "vae",
    ] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    fs::write(root.join("tokenizer/tokenizer.json"), "{}").unwrap();
    let c = Checkpoints::open(&root).unwrap();
    assert_eq!(
        c.dit(None).unwrap(),
        &Model {
            name: "ACE-Step-v1-5-turbo".into(),
            path: root.clone()
        }
    );
    assert_eq!(c.text_encoder().unwrap(), root.join("text_encoder"));
    assert_eq!(
        c.tokenizer().unwrap(),
        root.join("tokenizer/tokenizer.json")
    );
}
