//! A small complete tree for a first song without downloads: the published layout with narrow
//! random models and a working tokenizer. The song is noise with a shape, but every stage runs.

use super::bpe::vocabulary;
use super::checkpoint::Checkpoint;
use super::published::{self, Kind, alternating, changed};
use super::random::Component;
use super::tree::{TEXT_ENCODER, VAE};
use super::write::{Partial, Progress, check_space, checkpoint_bytes, unwritable, write_file};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// File that tells a demonstration tree from one with real models.
const MARKER: &str = "DEMO.txt";
/// Changes whenever other bytes are written.
const MARKER_TEXT: &str = "acestep demonstration tree, version 1\n\
    Random weights: good for trying the program, not for listening.\n";
/// Frames of silence; the engine repeats them where it needs more.
const SILENCE_FRAMES: usize = 900;
const SEED: u64 = 0;

/// Writes the demonstration tree at `out`. Does nothing when a complete one is there; refuses a
/// directory that holds anything else.
pub fn demo(out: &Path) -> Result<()> {
    let out = target(out)?;
    if occupied(&out)? {
        return accept(&out);
    }
    let components = components();
    let mut bytes = 4 << 20;
    for component in &components {
        bytes += checkpoint_bytes(&component.tensors()?);
    }
    check_space(&out, bytes)?;
    let partial = Partial::begin(&out)?;
    let mut silent = |_: u64, _: u64| {};
    let mut progress = Progress::new(bytes, &mut silent);
    for component in &components {
        let dir = partial.path().join(component.name);
        std::fs::create_dir(&dir).map_err(|e| unwritable(&dir, &e))?;
        component.write(&dir, SEED, &mut progress)?;
    }
    write_file(&partial.path().join(MARKER), MARKER_TEXT.as_bytes())?;
    match partial.finish() {
        // Another process may have made the same tree meanwhile.
        Err(_) if occupied(&out)? => accept(&out),
        done => done,
    }
}

/// Whether a complete demonstration tree of this version is at `dir`.
pub fn is_demo(dir: &Path) -> bool {
    accept(dir).is_ok()
}

fn accept(out: &Path) -> Result<()> {
    let marker = std::fs::read_to_string(out.join(MARKER)).unwrap_or_default();
    let remedy = "choose an empty or new directory";
    if marker != MARKER_TEXT {
        return Err(Error::Output(format!(
            "{} holds something else than a demonstration tree: {remedy}",
            out.display()
        )));
    }
    for component in components() {
        let dir = out.join(component.name);
        let fault = |what: String| {
            Error::Output(format!(
                "the demonstration tree {} is damaged ({what}): remove it or {remedy}",
                out.display()
            ))
        };
        let tensors = component.tensors()?;
        let checkpoint = Checkpoint::open(&dir).map_err(|e| fault(e.to_string()))?;
        checkpoint
            .check_shapes(tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())))
            .map_err(|e| fault(e.to_string()))?;
        let beside: &[&str] = match component.kind {
            Kind::Dit => &["config.json", "silence_latent.pt"],
            Kind::Text | Kind::Lm => &["config.json", "tokenizer.json"],
            Kind::Vae => &["config.json"],
        };
        for name in beside {
            if !dir.join(name).is_file() {
                return Err(fault(format!("{} is missing", dir.join(name).display())));
            }
        }
    }
    Ok(())
}

/// The path by its real name where it exists, so that `.` can be filled too.
fn target(out: &Path) -> Result<PathBuf> {
    if out.exists() {
        return out.canonicalize().map_err(|e| unwritable(out, &e));
    }
    Ok(out.to_path_buf())
}

fn occupied(out: &Path) -> Result<bool> {
    if !out.exists() {
        return Ok(false);
    }
    let mut list = std::fs::read_dir(out).map_err(|e| unwritable(out, &e))?;
    Ok(list.next().is_some())
}

fn components() -> Vec<Component> {
    let new = |name, kind, config| Component {
        name,
        kind,
        config,
        codes: 0,
        frames: SILENCE_FRAMES,
    };
    vec![
        new("acestep-v15-turbo", Kind::Dit, dit(true)),
        new("acestep-v15-base", Kind::Dit, dit(false)),
        new(VAE, Kind::Vae, vae()),
        new(TEXT_ENCODER, Kind::Text, text()),
    ]
}

/// Head size and patch as published, everything else narrow.
fn dit(turbo: bool) -> Value {
    changed(
        published::dit(turbo),
        json!({
            "fsq_dim": 64,
            "hidden_size": 64,
            "intermediate_size": 192,
            "layer_types": alternating(4),
            "num_attention_heads": 2,
            "num_attention_pooler_hidden_layers": 1,
            "num_audio_decoder_hidden_layers": 4,
            "num_hidden_layers": 4,
            "num_key_value_heads": 1,
            "num_lyric_encoder_hidden_layers": 2,
            "num_timbre_encoder_hidden_layers": 2,
            "text_hidden_dim": 64
        }),
    )
}

fn text() -> Value {
    let end = vocabulary(0) - 26;
    changed(
        published::text(),
        json!({
            "bos_token_id": end,
            "eos_token_id": end,
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "vocab_size": vocabulary(0)
        }),
    )
}

/// The encoder cannot be narrower than twice the latent; the decoder is.
fn vae() -> Value {
    changed(
        published::vae(),
        json!({"channel_multiples": [1, 1, 1, 1, 1], "decoder_channels": 16}),
    )
}

#[cfg(test)]
#[path = "demo_tests.rs"]
mod tests;
