//! The whole way once: the real engine on the tiny tree behind the HTTP API.

use engine::backend::Device;
use engine::backend::cpu::CpuBackend;
use engine::program::Math;
use engine::sample::noise::NoiseKind;
use engine::song::{Engine, EngineOptions};
use serde_json::{Value, json};
use server::config::{Config, Flags};
use server::env::Env;
use server::maker::{OpenMaker, SongMaker};
use server::run::Server;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::client::{finished, get, items, release, wav_data};

pub fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny")
}

/// A server over a tree of checkpoints, in an environment.
pub fn start(checkpoints: PathBuf, data: &Path, variables: &[(&str, &str)]) -> Server {
    let flags = Flags {
        checkpoints: Some(checkpoints.clone()),
        data: Some(data.to_path_buf()),
        port: Some(0),
        ..Flags::default()
    };
    let config = Config::new(&flags, &Env::of(variables)).expect("a configuration");
    let open: OpenMaker = Box::new(move || {
        let options = EngineOptions {
            checkpoints: checkpoints.clone(),
            device: Device {
                backend: Arc::new(CpuBackend::new(2, None)?),
                math: Math::F32,
            },
            lm_device: None,
            noise: NoiseKind::default(),
        };
        Ok(Box::new(Engine::open(options)?) as Box<dyn SongMaker>)
    });
    Server::start(config, open).expect("the server starts")
}

fn song(addr: SocketAddr, seeds: &str, items_wanted: usize) -> Vec<Vec<u8>> {
    let id = release(
        addr,
        &json!({
            "prompt": "upbeat pop", "lyrics": "[Verse]\nla la", "duration": 10,
            "inference_steps": 2, "batch_size": items_wanted, "audio_format": "wav",
            "seed": seeds, "use_random_seed": false,
        }),
    );
    let entry = finished(addr, &id);
    assert_eq!(entry["status"], 1, "{entry}");
    let list: Vec<Value> = items(&entry).as_array().cloned().unwrap_or_default();
    assert_eq!(list.len(), items_wanted);
    list.iter()
        .map(|i| get(addr, i["file"].as_str().unwrap_or_default()).body)
        .collect()
}

#[test]
fn same_seed_same_bytes_over_http() {
    let dir = tempfile::tempdir().expect("a directory");
    // What a language model adds to a batch depends on the first seed.
    let server = start(tiny(), dir.path(), &[("ACESTEP_INIT_LLM", "false")]);
    let batch = song(server.addr(), "11,12", 2);
    // Ten seconds of 16-bit stereo at 48 kHz.
    assert_eq!(wav_data(&batch[0]), 480_000 * 4);
    assert_ne!(batch[0], batch[1]);
    assert_eq!(song(server.addr(), "12", 1), [batch[1].clone()]);
    server.stop();
}

#[test]
fn damaged_and_missing_checkpoints_fail_jobs_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    for entry in ["acestep-v15-turbo", "vae", "Qwen3-Embedding-0.6B"] {
        let source = tiny().join(entry);
        std::fs::create_dir_all(tree.join(entry)).expect("made");
        for file in std::fs::read_dir(&source).expect("a folder").flatten() {
            std::fs::copy(file.path(), tree.join(entry).join(file.file_name())).expect("copied");
        }
    }
    let weights = tree.join("acestep-v15-turbo/model.safetensors");
    let size = std::fs::metadata(&weights).expect("a file").len();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&weights)
        .expect("opened");
    file.set_len(size / 2).expect("cut off");
    for (checkpoints, named) in [
        (tree, "model.safetensors"),
        (dir.path().join("nowhere"), "nowhere"),
    ] {
        let server = start(checkpoints, dir.path(), &[]);
        for _ in 0..2 {
            let entry = finished(server.addr(), &release(server.addr(), &json!({})));
            assert_eq!(entry["status"], 2);
            let error = items(&entry)[0]["error"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(get(server.addr(), "/health").status, 200);
        server.stop();
    }
}
