//! The demonstration tree: complete, the same every time, never over somebody's files.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::models::config::{DitConfig, LmConfig, TextConfig, VaeConfig};
use crate::weights::{Checkpoints, Silence};
use std::fs;

fn bytes_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            out.extend(bytes_of(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            out.push((path.file_name().unwrap().into(), bytes));
        }
    }
    out.sort();
    out
}

#[test]
fn it_is_complete_small_and_the_same_every_time() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    demo(&a).unwrap();
    fs::create_dir(&b).unwrap();
    demo(&b).unwrap();
    let files = bytes_of(&a);
    assert!(files == bytes_of(&b), "two runs differ");
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    assert!(total < 16 << 20, "{total} bytes");
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing is left beside them"
    );

    let tree = Checkpoints::open(&a).unwrap();
    for model in tree.dits() {
        let config = DitConfig::load(&model.path).unwrap();
        let checkpoint = Checkpoint::open(&model.path).unwrap();
        assert_eq!(config.is_turbo, model.name.ends_with("turbo"));
        let codes: u32 = config.fsq_input_levels.iter().product();
        assert_eq!(codes as usize, AUDIO_CODES);
        let silence = Silence::load(&model.path, &checkpoint, 64).unwrap();
        assert_eq!(silence.frames, SILENCE_FRAMES);
        let rms =
            (silence.data.iter().map(|x| x * x).sum::<f32>() / silence.data.len() as f32).sqrt();
        assert!((0.5..1.5).contains(&rms), "{rms}");
    }
    let text = TextConfig::load(&tree.text_encoder().unwrap()).unwrap();
    assert_eq!(text.vocab_size, vocabulary(0));
    assert_eq!(VaeConfig::load(&tree.vae().unwrap()).unwrap().hop(), 1920);
    assert!(tree.tokenizer().is_ok());
    let lm = &tree.lm(None).unwrap().path;
    assert_eq!(
        LmConfig::load(lm).unwrap().vocab_size,
        vocabulary(AUDIO_CODES)
    );
}

#[test]
fn the_two_models_differ() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    demo(&out).unwrap();
    let read = |model: &str| {
        Checkpoint::open(&out.join(model))
            .unwrap()
            .read_f32("null_condition_emb")
            .unwrap()
    };
    assert_ne!(read("acestep-v15-turbo"), read("acestep-v15-base"));
}

#[test]
fn an_existing_tree_is_kept_and_anything_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    demo(&out).unwrap();
    assert!(is_demo(&out));
    let weights = out.join("vae/diffusion_pytorch_model.safetensors");
    let made = fs::metadata(&weights).unwrap().modified().unwrap();
    demo(&out).unwrap();
    assert_eq!(fs::metadata(&weights).unwrap().modified().unwrap(), made);

    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    let text = demo(&out).unwrap_err().to_string();
    assert!(
        text.contains("damaged") && text.contains("cut off within"),
        "{text}"
    );

    fs::write(dir.path().join("song.wav"), "mine").unwrap();
    let error = demo(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Output(_)), "{error}");
    assert!(error.to_string().contains("something else"), "{error}");
    assert_eq!(
        fs::read_to_string(dir.path().join("song.wav")).unwrap(),
        "mine"
    );
}

/// A tree as version 1 wrote it.
fn version_1(out: &Path) {
    demo(out).unwrap();
    fs::remove_dir_all(out.join(LM)).unwrap();
    fs::write(out.join(MARKER), MARKER_TEXT_1).unwrap();
    for component in components().iter().filter(|c| c.kind == Kind::Dit) {
        let config = changed(
            component.config.clone(),
            json!({"fsq_input_levels": LEVELS_1}),
        );
        write_json(&out.join(component.name).join("config.json"), &config).unwrap();
    }
}

#[test]
fn a_tree_of_the_version_before_gets_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    demo(&new).unwrap();
    version_1(&old);
    let weights = old.join("vae/diffusion_pytorch_model.safetensors");
    let made = fs::metadata(&weights).unwrap().modified().unwrap();
    assert!(!is_demo(&old));
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| demo(&old))).collect();
        for maker in makers {
            maker.join().unwrap().unwrap();
        }
    });
    assert!(bytes_of(&new) == bytes_of(&old), "the trees differ");
    assert_eq!(fs::metadata(&weights).unwrap().modified().unwrap(), made);
    let left = fs::read_dir(&old).unwrap().count();
    assert_eq!(left, components().len() + 1, "nothing is left beside them");
}

#[test]
fn a_model_put_into_an_older_tree_stays() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("old");
    version_1(&old);
    let mine = old.join(LM).join("model.safetensors");
    fs::create_dir(old.join(LM)).unwrap();
    fs::write(&mine, "mine").unwrap();
    let text = demo(&old).unwrap_err().to_string();
    assert!(text.contains(LM) && text.contains("move it"), "{text}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");

    fs::remove_dir_all(old.join(LM)).unwrap();
    let config = old.join("acestep-v15-base/config.json");
    let theirs = fs::read(&config).unwrap();
    fs::write(&config, "{}").unwrap();
    let text = demo(&old).unwrap_err().to_string();
    assert!(text.contains("acestep-v15-base"), "{text}");
    assert_eq!(fs::read_to_string(&config).unwrap(), "{}");
    fs::write(&config, theirs).unwrap();

    fs::remove_dir_all(old.join(VAE)).unwrap();
    let text = demo(&old).unwrap_err().to_string();
    assert!(text.contains("damaged") && text.contains(VAE), "{text}");
}

#[test]
fn a_file_in_the_way_is_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for out in [file.clone(), file.join("below")] {
        let error = demo(&out).unwrap_err();
        assert!(matches!(error, Error::Output(_)), "{error}");
        assert!(error.to_string().contains("cannot be written"), "{error}");
    }
    let error = check_space(dir.path(), u64::MAX).unwrap_err().to_string();
    assert!(error.contains("needs") && error.contains("free"), "{error}");
}

#[test]
fn makers_at_the_same_time_agree() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo");
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..4).map(|_| scope.spawn(|| demo(&out))).collect();
        for maker in makers {
            maker.join().unwrap().unwrap();
        }
    });
    assert!(is_demo(&out));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
