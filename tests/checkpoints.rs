//! Checkpoint trees as the engine meets them: every packaging of the same weights makes the same
//! song, the lists of tensors are those of real files, and damage is said in a sentence.

use engine::backend::Weights;
use engine::backend::cpu::CpuBackend;
use engine::models::config::{DitConfig, LmConfig, TextConfig, VaeConfig};
use engine::models::layout::{self, Named};
use engine::program::{Math, WeightDecl, WeightForm};
use engine::song::{Metas, NoWatch, Sampling, SongRequest};
use engine::weights::{Checkpoint, Silence, WeightStore, demo::demo};
use engine::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::engines::on_processor;
use tests::requests::plain_sampling;

fn goldens(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("goldens")
        .join(path)
}

/// One short song, or why there is none.
fn song(tree: &Path, model: &str) -> Result<Vec<f32>> {
    let mut engine = on_processor(tree)?;
    let request = SongRequest {
        caption: "slow piano".into(),
        lyrics: "[Verse]\nrain".into(),
        language: "en".into(),
        metas: Metas {
            bpm: Some(90),
            key_scale: None,
            time_signature: None,
        },
        duration_s: Some(5.0),
        ..SongRequest::new(
            model,
            vec![3],
            Sampling {
                guidance_scale: 7.0,
                ..plain_sampling(2)
            },
        )
    };
    let song = engine.make(&request, &NoWatch)?;
    Ok(song.items.into_iter().next().expect("one item").pcm)
}

/// Bytes, dtype and shape of tensors by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn tensors(dir: &Path) -> Tensors {
    let checkpoint = Checkpoint::open(dir).expect("the golden opens");
    let copy = |(name, t): (&str, &engine::weights::Tensor)| {
        (
            name.to_string(),
            (t.stored, t.shape.clone(), checkpoint.bytes(t).to_vec()),
        )
    };
    checkpoint.tensors().map(copy).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("made");
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a tensor");
        (name, view)
    });
    let bytes = safetensors::serialize(views, None).expect("serialised");
    fs::write(path, bytes).expect("written");
}

/// A copy of the parts of the tiny tree that one model needs.
fn copy_tree(to: &Path, model: &str) {
    for part in [model, "vae", "Qwen3-Embedding-0.6B"] {
        copy_dir(&goldens("tiny").join(part), &to.join(part));
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let path = entry.expect("an entry").path();
        fs::write(
            to.join(path.file_name().expect("a name")),
            fs::read(&path).expect("read"),
        )
        .expect("copied");
    }
}

#[test]
fn lists_of_tensors_are_those_of_real_files() {
    let dit = |dir: &Path| DitConfig::load(dir).map(|c| layout::dit_tensors(&c));
    let text = |dir: &Path| TextConfig::load(dir).map(|c| layout::text_tensors(&c));
    let lm = |dir: &Path| LmConfig::load(dir).map(|c| layout::lm_tensors(&c));
    let vae = |dir: &Path| VaeConfig::load(dir).map(|c| layout::vae_tensors(&c));
    type List<'a> = &'a dyn Fn(&Path) -> Result<Vec<Named>>;
    let models: [(&str, List); 6] = [
        ("acestep-v15-turbo", &dit),
        ("acestep-v15-base", &dit),
        ("acestep-v15-xl-turbo", &dit),
        ("Qwen3-Embedding-0.6B", &text),
        ("acestep-5Hz-lm-0.6B", &lm),
        ("vae", &vae),
    ];
    for (name, list) in models {
        let dir = goldens("tiny").join(name);
        let mut listed = list(&dir).expect("the configuration is read");
        listed.sort();
        // The copy of the goldens kept here has only the decoding half of the autoencoder.
        if name.starts_with("vae") {
            listed.retain(|(name, _)| name.starts_with("decoder."));
        }
        let stored: Vec<Named> = tensors(&dir)
            .into_iter()
            .map(|(name, (_, shape, _))| (name, shape))
            .collect();
        let differ = listed.iter().zip(&stored).find(|(a, b)| a != b);
        assert_eq!(differ, None, "{name}");
        assert_eq!(listed.len(), stored.len(), "{name}");
    }
}

#[test]
fn weight_norms_fold_as_upstream_folds_them() {
    let file = fs::read(goldens("stages/vae/vae_weightnorm.safetensors")).expect("read");
    let golden = safetensors::SafeTensors::deserialize(&file).expect("a golden");
    let backend = CpuBackend::new(1, None).expect("the CPU backend opens");
    let checkpoint = Checkpoint::open(&goldens("tiny/vae")).expect("the golden opens");
    let store = WeightStore::new(Arc::new(checkpoint));
    for (name, perm) in [
        ("decoder.block.0.conv_t1", [2, 1, 0]),
        ("decoder.block.0.res_unit1.conv1", [0, 2, 1]),
    ] {
        let view = golden.tensor(&format!("{name}.weight")).expect("a tensor");
        let stored = view.shape().to_vec();
        let decl = WeightDecl {
            name: name.into(),
            shape: perm.iter().map(|axis: &usize| stored[*axis]).collect(),
            stored: stored.clone(),
            form: WeightForm::WeightNorm(perm),
            widen: false,
        };
        let region = store.region(&backend, &decl, Math::F32).expect("folded");
        let got = region.read_f32(&backend).expect("read");
        let floats = view.data().as_chunks::<4>().0.iter();
        let want: Vec<f32> = floats.map(|b| f32::from_le_bytes(*b)).collect();
        let (mut worst, mut largest) = (0f32, 0f32);
        for (i, x) in got.iter().enumerate() {
            let mut at = [0; 3];
            let mut rest = i;
            for axis in [2, 1, 0] {
                at[perm[axis]] = rest % decl.shape[axis];
                rest /= decl.shape[axis];
            }
            let y = want[(at[0] * stored[1] + at[1]) * stored[2] + at[2]];
            worst = worst.max((x - y).abs());
            largest = largest.max(y.abs());
        }
        assert!(worst <= 2e-7 * largest, "{name}: {worst} of {largest}");
    }
}

#[test]
fn shards_and_wider_elements_make_the_same_song() {
    let model = "acestep-v15-turbo";
    let expected = song(&goldens("tiny"), model).expect("a song");
    let dir = tempfile::tempdir().expect("a folder");

    let sharded = dir.path().join("sharded");
    copy_tree(&sharded, model);
    let all = tensors(&sharded.join(model));
    fs::remove_file(sharded.join(model).join("model.safetensors")).expect("removed");
    let mut map = BTreeMap::new();
    for part in 0..3 {
        let name = format!("model-{:05}-of-00003.safetensors", part + 1);
        let shard: Tensors = all
            .iter()
            .skip(part)
            .step_by(3)
            .map(|(name, t)| (format!("model.{name}"), t.clone()))
            .collect();
        map.extend(shard.keys().map(|tensor| (tensor.clone(), name.clone())));
        write(&sharded.join(model).join(name), &shard);
    }
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    fs::write(
        sharded.join(model).join("model.safetensors.index.json"),
        index,
    )
    .expect("written");
    assert!(song(&sharded, model).expect("a song") == expected, "shards");

    let wide = dir.path().join("wide");
    copy_tree(&wide, model);
    let widened = all.into_iter().map(|(name, (_, shape, bytes))| {
        let bytes = bytes
            .chunks_exact(2)
            .flat_map(|b| [0, 0, b[0], b[1]])
            .collect();
        (name, (Dtype::F32, shape, bytes))
    });
    write(
        &wide.join(model).join("model.safetensors"),
        &widened.collect(),
    );
    assert!(
        song(&wide, model).expect("a song") == expected,
        "f32 storage"
    );
}

/// Rewrites a DiT directory as the diffusers layout has it.
fn to_diffusers(from: &Path, to: &Path) {
    let mut parts: BTreeMap<&str, Tensors> = BTreeMap::new();
    for (name, tensor) in tensors(from) {
        let prefixes = [
            ("decoder.", "transformer"),
            ("encoder.", "condition_encoder"),
            ("tokenizer.", "audio_tokenizer"),
            ("detokenizer.", "audio_token_detokenizer"),
        ];
        let found = prefixes
            .iter()
            .find_map(|(p, part)| Some((name.strip_prefix(p)?, *part)));
        let (mut short, part) = found
            .map(|(short, part)| (short.to_string(), part))
            .unwrap_or((name.clone(), "condition_encoder"));
        for (ours, theirs) in [
            (".q_proj.", ".to_q."),
            (".k_proj.", ".to_k."),
            (".v_proj.", ".to_v."),
            (".o_proj.", ".to_out.0."),
            (".q_norm.", ".norm_q."),
            (".k_norm.", ".norm_k."),
            ("proj_in.1.", "proj_in_conv."),
            ("proj_out.1.", "proj_out_conv."),
        ] {
            short = short.replace(ours, theirs);
        }
        parts.entry(part).or_default().insert(short, tensor);
    }
    let checkpoint = Checkpoint::open(from).expect("the golden opens");
    let silence = Silence::load(from, &checkpoint, 64).expect("silence");
    let bytes = bytemuck::cast_slice(&silence.data).to_vec();
    let tensor = (Dtype::F32, vec![1, silence.frames, 64], bytes);
    let condition = parts.get_mut("condition_encoder").expect("a part");
    condition.insert("silence_latent".into(), tensor);

    let text = fs::read_to_string(from.join("config.json")).expect("read");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let encoder_keys = [
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_key_value_heads",
    ];
    let mut narrow = config.clone();
    for key in encoder_keys {
        if let Some(value) = config.get(format!("encoder_{key}")) {
            narrow[key] = value.clone();
        }
    }
    // The transformer's own configuration has none of the encoders' keys but the width.
    for key in [
        "text_hidden_dim",
        "fsq_dim",
        "num_lyric_encoder_hidden_layers",
        "encoder_intermediate_size",
        "encoder_num_attention_heads",
        "encoder_num_key_value_heads",
    ] {
        config.as_object_mut().expect("an object").remove(key);
    }
    config["encoder_hidden_size"] = narrow["hidden_size"].clone();
    for (part, tensors) in &parts {
        let dir = to.join(part);
        write(&dir.join("diffusion_pytorch_model.safetensors"), tensors);
        let config = if *part == "transformer" {
            &config
        } else {
            &narrow
        };
        fs::write(dir.join("config.json"), config.to_string()).expect("written");
    }
}

#[test]
fn the_diffusers_layout_makes_the_same_song() {
    for model in ["acestep-v15-turbo", "acestep-v15-xl-turbo"] {
        let dir = tempfile::tempdir().expect("a folder");
        let published = goldens("tiny").join(model);
        let root = dir.path().join("ACE-Step-v1-5");
        to_diffusers(&published, &root);
        assert_eq!(
            DitConfig::load(&root).expect("four configurations"),
            DitConfig::load(&published).expect("one configuration"),
        );
        copy_dir(&goldens("tiny/vae"), &root.join("vae"));
        for part in ["text_encoder", "tokenizer"] {
            copy_dir(&goldens("tiny/Qwen3-Embedding-0.6B"), &root.join(part));
        }
        let expected = song(&goldens("tiny"), model).expect("a song");
        let got = song(&root, "ACE-Step-v1-5").expect("a song");
        assert!(got == expected, "{model}");
    }
}

#[test]
fn the_demonstration_tree_makes_an_audible_song() {
    let dir = tempfile::tempdir().expect("a folder");
    let tree = dir.path().join("demo");
    demo(&tree).expect("written");
    for model in ["acestep-v15-turbo", "acestep-v15-base"] {
        let pcm = song(&tree, model).expect("a song");
        assert!(pcm.iter().all(|x| x.is_finite()), "{model}");
        let mean: f32 = pcm.iter().sum::<f32>() / pcm.len() as f32;
        let square: f32 = pcm.iter().map(|x| (x - mean).powi(2)).sum::<f32>();
        let rms = (square / pcm.len() as f32).sqrt();
        assert!(rms > 0.05, "{model}: {rms} around {mean}");
    }
}

#[test]
fn damage_is_a_sentence_with_file_place_and_remedy() {
    let model = "acestep-v15-turbo";
    let dir = tempfile::tempdir().expect("a folder");
    copy_tree(dir.path(), model);
    let refusal = || match song(dir.path(), model) {
        Err(Error::Corrupt(text) | Error::Missing(text)) => text,
        Ok(_) => panic!("a song was made of damaged files"),
        Err(other) => panic!("{other:?}"),
    };
    let says = |text: &str, parts: &[&str]| {
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    };
    for (file, part) in [
        (format!("{model}/model.safetensors"), "cut off within "),
        (
            "vae/diffusion_pytorch_model.safetensors".into(),
            "cut off within ",
        ),
        (
            "Qwen3-Embedding-0.6B/model.safetensors".into(),
            "cut off within ",
        ),
        (format!("{model}/config.json"), "not valid JSON"),
        (format!("{model}/silence_latent.pt"), "cut off"),
    ] {
        let path = dir.path().join(&file);
        let whole = fs::read(&path).expect("read");
        fs::write(&path, &whole[..whole.len() / 2]).expect("cut");
        says(&refusal(), &[&file, part, "download"]);
        fs::remove_file(&path).expect("removed");
        let name = file.rsplit('/').next().expect("a name");
        says(&refusal(), &[name]);
        fs::write(&path, whole).expect("restored");
    }

    // Several tensors at once are one error.
    let weights = dir.path().join(model).join("model.safetensors");
    let mut all = tensors(&dir.path().join(model));
    let gone: Vec<String> = all
        .keys()
        .filter(|n| n.contains("layers.1.mlp"))
        .cloned()
        .collect();
    for name in &gone {
        all.remove(name);
    }
    let misshapen = all.get_mut("decoder.norm_out.weight").expect("a tensor");
    misshapen.1 = vec![1, 64];
    write(&weights, &all);
    let text = refusal();
    says(
        &text,
        &["decoder.norm_out.weight: expected [64], found [1, 64]"],
    );
    for name in gone {
        says(&text, &[&format!("{name}: expected"), "found nothing"]);
    }
}
