//! Audio tokenizer and detokenizer. Both always compute in f32.

use super::bench::{Bench, compare_known, ids_within};
use super::golden::Golden;
use super::report::{Kind, Reporter};
use engine::backend::HostData;
use engine::models::audio_tokens::{audio_detokenizer, audio_tokenizer};
use engine::song::loaded::LoadedDit;
use engine::{Error, Result};

/// Latents to codes and back, and given codes to latents.
pub fn audio_tokenizer_stage(
    b: &Bench,
    g: &Golden,
    r: &mut Reporter,
    dit: &LoadedDit,
) -> Result<()> {
    let pool = dit.config.pool_window_size;
    let latents = g.array("latents")?;
    let [batch, frames, width] = latents.dims("latents")?;
    let missing = frames.next_multiple_of(pool) - frames;
    let silence = g.array("silence")?;
    if silence.data.len() < missing * width {
        return Err(Error::Corrupt(
            "silence is too short to pad the latents".into(),
        ));
    }
    let mut padded = Vec::new();
    for i in 0..batch {
        padded.extend_from_slice(latents.item(i));
        padded.extend_from_slice(&silence.data[..missing * width]);
    }
    let groups = batch * (frames + missing) / pool;
    let program = audio_tokenizer(&dit.config, groups)?;
    let input = [("latents", HostData::F32(&padded))];
    let mut out = b.run(program, &dit.weights, &input, &[])?;
    compare_known(g, &out, r, Kind::BlockF32)?;

    let codes = out.take_i32("indices")?;
    let mut out = b.run(
        audio_detokenizer(&dit.config, groups)?,
        &dit.weights,
        &[("codes", HostData::I32(&codes))],
        &[],
    )?;
    if g.has("detokenized") {
        let golden = g.array("detokenized")?;
        r.compare(
            "detokenized",
            &out.take_f32("latents")?,
            &golden,
            Kind::BlockF32,
        );
    }
    if g.has("given_codes") {
        given_codes(b, g, r, dit)?;
    }
    Ok(())
}

fn given_codes(b: &Bench, g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    let codes = ids_within(
        &g.integers("given_codes")?,
        dit.config.codes(),
        "given_codes",
    )?;
    let program = audio_detokenizer(&dit.config, codes.len())?;
    let mut out = b.run(
        program,
        &dit.weights,
        &[("codes", HostData::I32(&codes))],
        &[],
    )?;
    for (name, ours) in [
        ("given_codes6", "codes6"),
        ("given_quantized", "quantized"),
        ("given_detokenized", "latents"),
    ] {
        if g.has(name) {
            r.compare(name, &out.take_f32(ours)?, &g.array(name)?, Kind::BlockF32);
        }
    }
    Ok(())
}
