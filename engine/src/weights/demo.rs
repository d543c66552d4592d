//! A small complete tree for a first song without downloads: the published layout with narrow
//! random models and a working tokenizer. The song is noise with a shape, but every stage runs.

use super::bpe::vocabulary;
use super::checkpoint::Checkpoint;
use super::published::{self, Kind, alternating, changed};
use super::random::Component;
use super::tree::{TEXT_ENCODER, VAE};
use super::write::{
    Partial, Progress, check_space, checkpoint_bytes, unwritable, write_file, write_json,
};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// File that tells a demonstration tree from one with real models.
const MARKER: &str = "DEMO.txt";
/// Changes whenever other bytes are written.
const MARKER_TEXT: &str = "acestep demonstration tree, version 2\n\
    Random weights: good for trying the program, not for listening.\n";
/// The marker of the version before: the same tree without the language model, and with as many
/// audio codes as published models have.
const MARKER_TEXT_1: &str = "acestep demonstration tree, version 1\n\
    Random weights: good for trying the program, not for listening.\n";
/// The language model's directory.
const LM: &str = "acestep-5Hz-lm-0.6B";
/// Audio codes of the language model: few, so that it opens at once.
const AUDIO_CODES: usize = 2048;
/// Levels of the DiTs' quantiser. Their product is [`AUDIO_CODES`], so that every part of the
/// tree knows the codes of every other.
const LEVELS: [u32; 6] = [4, 4, 4, 4, 4, 2];
/// Levels in a tree of version 1, those of published models.
const LEVELS_1: [u32; 6] = [8, 8, 8, 5, 5, 5];
/// Frames of silence; the engine repeats them where it needs more.
const SILENCE_FRAMES: usize = 900;
const SEED: u64 = 0;

/// Writes the demonstration tree at `out`. Does nothing when a complete one is there, and adds
/// what is new when one of an older version is; refuses a directory that holds anything else.
pub fn demo(out: &Path) -> Result<()> {
    let out = target(out)?;
    if occupied(&out)? {
        return match marker(&out).as_str() {
            MARKER_TEXT_1 => renew(&out),
            _ => accept(&out),
        };
    }
    let components = components();
    let bytes = needed_bytes(&components)?;
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

/// Makes a tree of version 1 one of this version. Its weights stay as they are.
fn renew(out: &Path) -> Result<()> {
    for component in components() {
        let dir = out.join(component.name);
        match component.kind {
            Kind::Lm => add(&component, &dir)?,
            Kind::Dit => renew_config(&component, &dir)?,
            Kind::Text | Kind::Vae => {}
        }
    }
    // The marker changes last and at once, so that a tree is never taken for more than it is.
    replace(&out.join(MARKER), |file| {
        write_file(file, MARKER_TEXT.as_bytes())
    })?;
    accept(out)
}

/// Adds a component, unless it is there.
fn add(component: &Component, dir: &Path) -> Result<()> {
    if !dir.exists() {
        let bytes = needed_bytes(std::slice::from_ref(component))?;
        check_space(dir, bytes)?;
        let partial = Partial::begin(dir)?;
        let mut silent = |_: u64, _: u64| {};
        component.write(partial.path(), SEED, &mut Progress::new(bytes, &mut silent))?;
        // Fails when another process was faster; what counts is what is there now.
        let finished = partial.finish();
        if !dir.exists() {
            finished?;
        }
    }
    check(component, dir).map_err(|what| not_ours(dir, &what))
}

/// Gives a DiT of version 1 the levels of this one.
fn renew_config(component: &Component, dir: &Path) -> Result<()> {
    let file = dir.join("config.json");
    let before = changed(
        component.config.clone(),
        json!({"fsq_input_levels": LEVELS_1}),
    );
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    match serde_json::from_str::<Value>(&text) {
        Ok(found) if found == before => replace(&file, |file| write_json(file, &component.config)),
        Ok(found) if found == component.config => Ok(()),
        _ => Err(not_ours(dir, "its config.json has been changed")),
    }
}

/// Something else has the name of a part of the tree.
fn not_ours(dir: &Path, what: &str) -> Error {
    Error::Output(format!(
        "{} is not the demonstration's model of this name ({what}): move it to another place, or \
         choose an empty or new directory",
        dir.display()
    ))
}

/// Gives a file new contents, at once.
fn replace(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = Partial::begin(file)?;
    let new = partial.path().join("new");
    write(&new)?;
    std::fs::rename(&new, file).map_err(|e| unwritable(file, &e))
}

/// Bytes on the disk, with room for tokenizers and silences.
fn needed_bytes(components: &[Component]) -> Result<u64> {
    let mut bytes = 4 << 20;
    for component in components {
        bytes += checkpoint_bytes(&component.tensors()?);
    }
    Ok(bytes)
}

/// Whether a complete demonstration tree of this version is at `dir`.
pub fn is_demo(dir: &Path) -> bool {
    accept(dir).is_ok()
}

/// The text of the marker, empty without one.
fn marker(out: &Path) -> String {
    std::fs::read_to_string(out.join(MARKER)).unwrap_or_default()
}

fn accept(out: &Path) -> Result<()> {
    let remedy = "choose an empty or new directory";
    if marker(out) != MARKER_TEXT {
        return Err(Error::Output(format!(
            "{} holds something else than a demonstration tree: {remedy}",
            out.display()
        )));
    }
    for component in components() {
        check(&component, &out.join(component.name)).map_err(|what| {
            Error::Output(format!(
                "the demonstration tree {} is damaged ({what}): remove it or {remedy}",
                out.display()
            ))
        })?;
    }
    Ok(())
}

/// Whether `dir` holds this component; if not, what is wrong with it.
fn check(component: &Component, dir: &Path) -> std::result::Result<(), String> {
    let tensors = component.tensors().map_err(|e| e.to_string())?;
    let checkpoint = Checkpoint::open(dir).map_err(|e| e.to_string())?;
    checkpoint
        .check_shapes(tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())))
        .map_err(|e| e.to_string())?;
    let beside: &[&str] = match component.kind {
        Kind::Dit => &["config.json", "silence_latent.pt"],
        Kind::Text | Kind::Lm => &["config.json", "tokenizer.json"],
        Kind::Vae => &["config.json"],
    };
    match beside.iter().find(|name| !dir.join(name).is_file()) {
        Some(name) => Err(format!("{} is missing", dir.join(name).display())),
        None => Ok(()),
    }
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
        codes: if kind == Kind::Lm { AUDIO_CODES } else { 0 },
        frames: SILENCE_FRAMES,
    };
    vec![
        new("acestep-v15-turbo", Kind::Dit, dit(true)),
        new("acestep-v15-base", Kind::Dit, dit(false)),
        new(VAE, Kind::Vae, vae()),
        new(TEXT_ENCODER, Kind::Text, text()),
        new(LM, Kind::Lm, lm()),
    ]
}

/// Head size and patch as published, everything else narrow.
fn dit(turbo: bool) -> Value {
    changed(
        published::dit(turbo),
        json!({
            "fsq_dim": 64,
            "fsq_input_levels": LEVELS,
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

/// Two narrow layers; the table is what takes space.
fn lm() -> Value {
    changed(
        published::lm(64, 2, 2, 160),
        json!({
            "bos_token_id": vocabulary(0) - 26,
            "eos_token_id": vocabulary(0) - 24,
            "num_key_value_heads": 1,
            "vocab_size": vocabulary(AUDIO_CODES)
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
