//! Checkpoint files: every layout gives the same tensors, every fault one clear error.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use safetensors::serialize;
use safetensors::tensor::TensorView;
use std::fs;
use tempfile::TempDir;

/// Writes named f32 tensors, element i of tensor n being `n * 1000 + i`.
fn write(path: &Path, tensors: &[(&str, &[usize])]) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(n, (_, shape))| {
            let len: usize = shape.iter().product();
            (0..len)
                .flat_map(|i| ((n * 1000 + i) as f32).to_le_bytes())
                .collect()
        })
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, shape), data)| {
        (
            *name,
            TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap(),
        )
    });
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[track_caller]
fn refused(path: &Path, parts: &[&str]) -> String {
    let text = match Checkpoint::open(path).map(|_| ()) {
        Err(Error::Corrupt(text) | Error::Missing(text)) => text,
        other => panic!("{other:?}"),
    };
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    text
}

#[test]
fn a_single_file_with_prefixes() {
    let dir = temp();
    let file = dir.path().join("model.safetensors");
    write(
        &file,
        &[
            ("model.norm.weight", &[3]),
            ("diffusion_model.decoder.x", &[2, 2]),
        ],
    );
    for path in [dir.path(), &file] {
        let c = Checkpoint::open(path).unwrap();
        assert_eq!(c.read_f32("norm.weight").unwrap(), [0.0, 1.0, 2.0]);
        assert_eq!(c.read_f32("model.norm.weight").unwrap(), [0.0, 1.0, 2.0]);
        assert_eq!(c.get("decoder.x").unwrap().shape, [2, 2]);
        assert_eq!(c.tensors().count(), 2);
        assert_eq!(c.file(c.get("decoder.x").unwrap()), file);
    }
}

#[test]
fn shards_are_one_checkpoint_and_their_index_is_checked() {
    let dir = temp();
    let at = |name: &str| dir.path().join(name);
    write(&at("a.safetensors"), &[("x", &[2])]);
    write(&at("b.safetensors"), &[("y", &[3]), ("z", &[1])]);
    let index = |map: &str| fs::write(at("model.safetensors.index.json"), map).unwrap();
    index(r#"{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}"#);
    let c = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(c.read_f32("y").unwrap(), [0.0, 1.0, 2.0]);
    assert_eq!(c.files().count(), 2);

    index(r#"{"weight_map": {"x": "a.safetensors", "y": "c.safetensors", "w": "d.safetensors"}}"#);
    refused(dir.path(), &["index.json", "c.safetensors, d.safetensors"]);
    index(r#"{"weight_map": {"y": "a.safetensors"}}"#);
    refused(
        dir.path(),
        &["index.json", "y is in a.safetensors, where it is not"],
    );
    for hostile in [
        "../a.safetensors",
        "/etc/passwd",
        "..",
        "",
        "sub/a.safetensors",
    ] {
        index(&format!(r#"{{"weight_map": {{"x": "{hostile}"}}}}"#));
        refused(dir.path(), &["index.json", "not a file name"]);
    }
    for broken in [
        "",
        "{",
        "[]",
        r#"{"weight_map": []}"#,
        r#"{"weight_map": {}}"#,
    ] {
        index(broken);
        refused(dir.path(), &["index.json", "download"]);
    }
    write(&at("b.safetensors"), &[("x", &[3])]);
    index(r#"{"weight_map": {"x": "a.safetensors", "model.x": "b.safetensors"}}"#);
    refused(dir.path(), &["b.safetensors", "x is there twice"]);
}

#[test]
fn the_diffusers_layout_equals_the_published_one() {
    let dir = temp();
    let published: [(&str, &[usize]); 6] = [
        ("decoder.layers.0.self_attn.q_proj.weight", &[2, 3]),
        ("decoder.proj_in.1.weight", &[4]),
        (
            "encoder.lyric_encoder.layers.0.self_attn.k_norm.weight",
            &[5],
        ),
        ("null_condition_emb", &[1, 1, 2]),
        ("tokenizer.quantizer.project_in.bias", &[6]),
        ("detokenizer.layers.0.self_attn.o_proj.weight", &[3, 2]),
    ];
    write(&dir.path().join("one/model.safetensors"), &published);
    let one = Checkpoint::open(&dir.path().join("one")).unwrap();
    type Part<'a> = (&'a str, &'a [(&'a str, &'a [usize])]);
    let parts: [Part; 4] = [
        (
            "transformer",
            &[
                ("layers.0.self_attn.to_q.weight", &[2, 3]),
                ("proj_in_conv.weight", &[4]),
            ],
        ),
        (
            "condition_encoder",
            &[
                ("lyric_encoder.layers.0.self_attn.norm_k.weight", &[5]),
                ("null_condition_emb", &[1, 1, 2]),
            ],
        ),
        ("audio_tokenizer", &[("quantizer.project_in.bias", &[6])]),
        (
            "audio_token_detokenizer",
            &[("layers.0.self_attn.to_out.0.weight", &[3, 2])],
        ),
    ];
    for (part, tensors) in parts {
        let file = dir
            .path()
            .join("many")
            .join(part)
            .join("diffusion_pytorch_model.safetensors");
        write(&file, tensors);
    }
    let many = Checkpoint::open(&dir.path().join("many")).unwrap();
    let shapes = |c: &Checkpoint| -> Vec<(String, Vec<usize>)> {
        c.tensors()
            .map(|(n, t)| (n.to_string(), t.shape.clone()))
            .collect()
    };
    assert_eq!(shapes(&one), shapes(&many));
    fs::remove_dir_all(dir.path().join("many/audio_tokenizer")).unwrap();
    refused(&dir.path().join("many"), &["audio_tokenizer"]);
}

#[test]
fn a_file_cut_off_anywhere_says_where() {
    let dir = temp();
    let file = dir.path().join("model.safetensors");
    write(&file, &[("first", &[64]), ("second", &[64])]);
    let whole = fs::read(&file).unwrap();
    let data = whole.len() - 512;
    for (len, place) in [
        (0, "too few for a header"),
        (7, "too few for a header"),
        (8, "the file has 8"),
        (data - 1, "the header at byte 8"),
        (data, "cut off within first"),
        (data + 255, "cut off within first"),
        (data + 256, "cut off within second"),
        (whole.len() - 1, "cut off within second"),
    ] {
        fs::write(&file, &whole[..len]).unwrap();
        refused(
            dir.path(),
            &["model.safetensors", place, "download the file again"],
        );
    }
    fs::write(&file, [whole.as_slice(), b"tail"].concat()).unwrap();
    refused(dir.path(), &["4 bytes too many"]);
    fs::write(&file, [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat()).unwrap();
    refused(dir.path(), &["model.safetensors", "header"]);
}

#[test]
fn one_error_lists_every_tensor() {
    let dir = temp();
    let file = dir.path().join("model.safetensors");
    write(
        &file,
        &[
            ("a", &[2, 3]),
            ("c.weight_v", &[4, 1, 2]),
            ("c.weight_g", &[4, 1, 1]),
        ],
    );
    let c = Checkpoint::open(dir.path()).unwrap();
    let decl = |name: &str, stored: &[usize], form: WeightForm| WeightDecl {
        name: name.into(),
        stored: stored.to_vec(),
        shape: stored.to_vec(),
        form,
        widen: false,
    };
    let good = [
        decl("a", &[2, 3], WeightForm::Stored),
        decl("c", &[4, 1, 2], WeightForm::WeightNorm([0, 2, 1])),
    ];
    c.check(&good).unwrap();
    let bad = [
        decl("a", &[3, 2], WeightForm::Stored),
        decl("b", &[7], WeightForm::Stored),
        decl("c", &[4, 1, 2], WeightForm::WeightNorm([0, 2, 1])),
        decl("d", &[8, 1, 2], WeightForm::WeightNorm([0, 2, 1])),
    ];
    let Err(Error::Corrupt(text)) = c.check(&bad) else {
        panic!("accepted")
    };
    for part in [
        "4 tensors",
        "a: expected [3, 2], found [2, 3]",
        "b: expected [7], found nothing",
        "d.weight_g: expected [8, 1, 1], found nothing",
        "d.weight_v: expected [8, 1, 2], found nothing",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(text.lines().count(), 5);
    assert!(
        text.lines().all(|l| l.contains("model.safetensors")),
        "{text}"
    );
}

#[test]
fn types_that_cannot_be_computed_with_are_named() {
    let dir = temp();
    let view = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
    fs::write(
        dir.path().join("model.safetensors"),
        serialize([("ids", view)], None).unwrap(),
    )
    .unwrap();
    let c = Checkpoint::open(dir.path()).unwrap();
    let text = c
        .check_shapes([("ids", &[1usize][..])])
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("ids: expected BF16, F16 or F32, found I64"),
        "{text}"
    );
    assert!(c.read_f32("ids").is_err());
}

#[test]
fn nothing_there() {
    let dir = temp();
    refused(
        dir.path(),
        &["model.safetensors", "acestep checkpoint demo"],
    );
    refused(&dir.path().join("gone"), &["gone"]);
}

proptest! {
    /// Any header bytes give a checkpoint or an error, and whatever is accepted can be read.
    #[test]
    fn hostile_headers(at in 0usize..4096, byte: u8, header in "\\PC{0,200}", replace: bool) {
        let dir = temp();
        let file = dir.path().join("model.safetensors");
        write(&file, &[("first", &[4, 2]), ("second", &[3])]);
        let mut bytes = fs::read(&file).unwrap();
        if replace {
            bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        } else {
            let at = at % (bytes.len() - 44);
            bytes[at] = byte;
        }
        fs::write(&file, &bytes).unwrap();
        if let Ok(c) = Checkpoint::open(dir.path()) {
            for (name, tensor) in c.tensors() {
                prop_assert_eq!(c.bytes(tensor).len(), tensor.bytes());
                if tensor.dtype().is_some() {
                    prop_assert_eq!(c.read_f32(name).unwrap().len(), tensor.len());
                }
            }
        }
    }
}
