//! `acestep verify` over the project's golden data, and proof that it can fail.

use engine::backend::Backend;
use engine::backend::cpu::CpuBackend;
use engine::program::Math;
use server::verify::{Line, Options, Totals, verify};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens")
}

fn options(root: &Path) -> Options {
    let backend = CpuBackend::new(2, None).expect("the CPU backend opens");
    Options {
        goldens: root.to_path_buf(),
        backend: Arc::new(backend) as Arc<dyn Backend>,
        math: Math::F32,
        filter: None,
        built_only: false,
    }
}

/// Totals and the lines that are no passes.
fn run(options: &Options) -> (Totals, Vec<String>) {
    let mut bad = Vec::new();
    let mut see = |line: &Line| {
        if !matches!(
            line,
            Line::Compared { pass: true, .. } | Line::Inputs { .. }
        ) {
            bad.push(line.to_string());
        }
    };
    let totals = verify(options, &mut see).expect("there is a tree");
    (totals, bad)
}

/// A copy of the tree's `stages` and `tiny`, to be damaged. Only the named stage files.
fn copy_of(stages: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    copy(&goldens().join("tiny"), &dir.path().join("tiny"));
    std::fs::create_dir_all(dir.path().join("stages")).expect("the folder is made");
    std::fs::write(dir.path().join("stages/MANIFEST.json"), "{}").expect("written");
    for stage in stages {
        let to = dir.path().join("stages").join(stage);
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("the folder is made");
        std::fs::copy(goldens().join("stages").join(stage), to).expect("the file is copied");
    }
    dir
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is made");
    for entry in std::fs::read_dir(from)
        .expect("the folder is read")
        .flatten()
    {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).expect("the file is copied");
        }
    }
}

/// Changes the exponent of the last element of a tensor.
fn spoil(path: &Path, tensor: &str) {
    let mut bytes = std::fs::read(path).expect("the file is read");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    let end = header.info(tensor).expect("the tensor").data_offsets.1;
    let last = bytes.len() - header.data_len() + end - 1;
    bytes[last] ^= 0x40;
    std::fs::write(path, bytes).expect("the file is written");
}

#[test]
fn every_stage_passes_in_f32() {
    let (totals, bad) = run(&options(&goldens()));
    assert_eq!((totals.failed, totals.not_built), (0, 0), "{bad:#?}");
    assert!(totals.by_definition.is_empty(), "{totals:?}");
    assert!(totals.passed > 400, "only {} comparisons", totals.passed);
}

#[test]
fn every_stage_passes_in_bf16() {
    let (totals, bad) = run(&Options {
        math: Math::Bf16,
        ..options(&goldens())
    });
    assert_eq!((totals.failed, totals.not_built), (0, 0), "{bad:#?}");
    assert!(totals.passed > 400, "only {} comparisons", totals.passed);
}

#[test]
fn a_filter_that_fits_nothing_is_refused() {
    let mut filtered = options(&goldens());
    filtered.filter = Some("no such file".into());
    let refusal = verify(&filtered, &mut |_: &Line| {});
    assert!(
        matches!(refusal, Err(engine::Error::Request(_))),
        "{refusal:?}"
    );
}

#[test]
fn a_filter_chooses_files() {
    let mut filtered = options(&goldens());
    filtered.filter = Some("xl/lyric".into());
    let (totals, bad) = run(&filtered);
    assert!(bad.is_empty(), "{bad:?}");
    assert!((5..30).contains(&totals.passed), "{}", totals.passed);
}

/// One wrong number in the golden data or in the weights fails the stages that depend on it.
#[test]
fn one_wrong_number_fails() {
    let velocity = "turbo/dit_forward_t0.3.safetensors";
    let tree = copy_of(&[velocity]);
    assert_eq!(run(&options(tree.path())).0.failed, 0);
    spoil(&tree.path().join("stages").join(velocity), "velocity");
    assert_eq!(run(&options(tree.path())).0.failed, 1);

    let tree = copy_of(&[velocity, "turbo/lyric_encoder.safetensors"]);
    let weights = tree.path().join("tiny/acestep-v15-turbo/model.safetensors");
    spoil(&weights, "decoder.layers.2.mlp.down_proj.weight");
    let (totals, bad) = run(&options(tree.path()));
    assert!(totals.failed > 0 && totals.passed > 0);
    assert!(
        bad.iter().all(|line| line.starts_with(velocity)),
        "{bad:#?}"
    );
    assert!(
        bad.iter().any(|line| line.contains(" velocity ")),
        "{bad:#?}"
    );
    assert!(
        !bad.iter().any(|line| line.contains("block1.out")),
        "{bad:#?}"
    );
}

#[test]
fn files_that_cannot_be_trusted_fail_with_a_reason() {
    let tree = copy_of(&["xl/timbre_encoder.safetensors"]);
    let stages = tree.path().join("stages");
    std::fs::write(stages.join("surprise.safetensors"), b"x").expect("written");
    std::fs::write(stages.join("rng.safetensors"), b"not a header").expect("written");
    std::fs::write(stages.join("schedules.json"), b"{\"turbo\": 3}").expect("written");
    let manifest = r#"{"dcw.safetensors": {}, "xl/timbre_encoder.safetensors":
        {"tensors": {"embed": {"shape": [1, 2]}, "gone": {"shape": [1]}}}}"#;
    std::fs::write(stages.join("MANIFEST.json"), manifest).expect("written");
    let (_, bad) = run(&options(tree.path()));
    for reason in [
        "surprise.safetensors   .*belongs to no known stage",
        "rng.safetensors   .*is not a safetensors file",
        "schedules.json   .*turbo is not a list",
        "dcw.safetensors   .*is missing, MANIFEST.json lists it",
        "xl/timbre_encoder.safetensors   .*tensor gone is missing",
        "xl/timbre_encoder.safetensors   .*tensor embed has shape",
    ] {
        let (file, why) = reason.split_once("   .*").expect("two parts");
        let told = |line: &String| line.starts_with(file) && line.contains(why);
        assert!(bad.iter().any(told), "{reason}: {bad:#?}");
        assert!(
            bad.iter()
                .find(|l| told(l))
                .is_some_and(|l| l.ends_with("FAIL"))
        );
    }
    assert_eq!(bad.len(), 6, "{bad:#?}");
}

#[test]
fn capabilities_to_come_fail_unless_they_are_excused() {
    let tree = copy_of(&["pack_sequences.safetensors"]);
    for name in ["lora", "lokr"] {
        let file = format!("training_{name}.safetensors");
        std::fs::write(tree.path().join(file), b"").expect("written");
    }
    let mut options = options(tree.path());
    let (totals, _) = run(&options);
    assert_eq!((totals.failed, totals.not_built), (2, 2));
    options.built_only = true;
    let (totals, lines) = run(&options);
    assert_eq!((totals.failed, totals.not_built), (0, 2));
    assert!(lines.iter().all(|l| l.contains("not built")), "{lines:?}");
}

#[test]
fn a_folder_without_stages_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = verify(&options(dir.path()), &mut |_| {}).expect_err("no tree");
    assert!(error.to_string().contains("no folder stages"), "{error}");
}
