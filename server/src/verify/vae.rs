//! The autoencoder: decoder and encoder, whole and over tiles, and folded weights.

use super::bench::Bench;
use super::golden::{Array, Golden};
use super::report::{Kind, Reporter};
use engine::backend::{HostData, HostVec, Weights};
use engine::models::vae::vae_decoder;
use engine::models::vae_encoder::{encode_overlap, vae_encoder};
use engine::program::{Math, WeightDecl, WeightForm};
use engine::song::NoWatch;
use engine::song::loaded::LoadedVae;
use engine::{Error, Result};

/// `(rows, columns)` to `(columns, rows)`: files are channels-first, programs channels-last.
fn transposed(x: &[f32], rows: usize) -> Vec<f32> {
    let columns = x.len() / rows.max(1);
    (0..x.len())
        .map(|i| x[(i % rows) * columns + i / rows])
        .collect()
}

fn latents_of(g: &Golden, vae: &LoadedVae) -> Result<(Array, usize)> {
    let latents = g.array("latents")?;
    let [_, channels, frames] = latents.dims("latents")?;
    if channels == vae.config.decoder_input_channels {
        return Ok((latents, frames));
    }
    Err(Error::Corrupt(format!(
        "latents have {channels} channels, the autoencoder {}",
        vae.config.decoder_input_channels
    )))
}

/// The decoder in one piece, with its intermediates.
pub fn decode(b: &Bench, g: &Golden, r: &mut Reporter, vae: &LoadedVae) -> Result<()> {
    let (latents, frames) = latents_of(g, vae)?;
    for i in 0..latents.shape[0] {
        let x = transposed(latents.item(i), latents.shape[1]);
        let program = vae_decoder(&vae.config, b.math, frames)?;
        let out = b.run(
            program,
            &vae.weights,
            &[("latents", HostData::F32(&x))],
            &[],
        )?;
        for (name, shape, data) in out.iter().filter(|(name, _, _)| g.has(name)) {
            let (HostVec::F32(ours), Some(width)) = (data, shape.last()) else {
                continue;
            };
            let golden = g.array(name)?;
            let [batch, channels, _]: [usize; 3] = golden.dims(name)?;
            if batch != latents.shape[0] || channels != *width {
                return Err(Error::Corrupt(format!("{name} is {:?}", golden.shape)));
            }
            let ours = transposed(ours, ours.len() / width);
            let label = if batch == 1 {
                name.clone()
            } else {
                format!("{name}[{i}]")
            };
            r.compare_part(&label, &ours, golden.item(i), Kind::Vae);
        }
    }
    Ok(())
}

/// Scale of 16-bit samples.
const I16: f32 = 32_768.0;
/// Samples of the shorter recording of an encoder's file: one frame and what is left behind it.
const ODD: usize = 2007;

/// The encoder: its posterior, of the whole recording and of an odd beginning, what happens on
/// the way, and the posterior again over tiles.
pub fn encode(b: &Bench, g: &Golden, r: &mut Reporter, vae: &LoadedVae) -> Result<()> {
    let audio = audio_of(b, g)?;
    let [batch, channels, samples] = audio.dims("audio_i16")?;
    if batch != 1 || channels != vae.config.audio_channels {
        return Err(Error::Corrupt(format!("audio_i16 is {:?}", audio.shape)));
    }
    let pcm: Vec<f32> = transposed(audio.item(0), channels)
        .iter()
        .map(|x| x / I16)
        .collect();
    let program = vae_encoder(&vae.config, b.math, samples)?;
    let inputs = [("audio", HostData::F32(&pcm))];
    let out = b.run(program, &vae.weights, &inputs, &[])?;
    for (name, shape, data) in out.iter().filter(|(name, _, _)| g.has(name)) {
        if let (HostVec::F32(ours), Some(width)) = (data, shape.last()) {
            let ours = transposed(ours, ours.len() / width);
            r.compare(name, &ours, &g.array(name)?, Kind::Vae);
        }
    }
    let encoder = vae.encoder(&*b.backend, b.math)?;
    let overlap = encode_overlap(&vae.config);
    let cases = [
        ("", samples, samples),
        (" over tiles", samples, 2 * overlap + 3),
        ("_odd", ODD.min(samples), 1),
    ];
    for (case, samples, tile) in cases {
        let part = &pcm[..samples * channels];
        let posterior = encoder.encode(part, tile, overlap, &NoWatch)?;
        let std = |x: &f32| x.exp().ln_1p() + 1e-4;
        let std = posterior.scale.iter().map(std).collect();
        for (name, ours) in [
            ("mean", posterior.mean),
            ("scale", posterior.scale),
            ("std", std),
        ] {
            let golden = match case {
                "_odd" => format!("{name}_odd"),
                _ => name.to_string(),
            };
            if g.has(&golden) {
                let ours = transposed(&ours, ours.len() / vae.config.decoder_input_channels);
                let label = format!("{name}{case}");
                r.compare(&label, &ours, &g.array(&golden)?, Kind::Vae);
            }
        }
    }
    Ok(())
}

/// The recording of an encoder's file; one file has it for all.
fn audio_of(b: &Bench, g: &Golden) -> Result<Array> {
    const NAME: &str = "audio_i16";
    if g.has(NAME) {
        return g.array(NAME);
    }
    b.stage("vae/vae_encode.safetensors")?.array(NAME)
}

/// The decoder over tiles of the recorded size.
pub fn tiled(b: &Bench, g: &Golden, r: &mut Reporter, vae: &LoadedVae) -> Result<()> {
    let (latents, _) = latents_of(g, vae)?;
    let size = |key: &str| {
        let n = g.number(key).filter(|n| (1.0..1e6).contains(n));
        n.map(|n| n as usize)
            .ok_or_else(|| Error::Corrupt(format!("parameter {key} is missing or absurd")))
    };
    let (tile, overlap) = (size("chunk")?, size("overlap")?);
    let x = transposed(latents.item(0), latents.shape[1]);
    let decoder = vae.on(&*b.backend, b.math);
    let pcm = decoder.decode(&x, tile, overlap, &NoWatch)?;
    let channels = vae.config.audio_channels;
    let ours = transposed(&pcm, pcm.len() / channels);
    r.compare("audio_tiled", &ours, &g.array("audio_tiled")?, Kind::Vae);
    if g.has("audio_whole_head") {
        let golden = g.array("audio_whole_head")?;
        let [_, _, head]: [usize; 3] = golden.dims("audio_whole_head")?;
        let samples = ours.len() / channels;
        let ours: Vec<f32> = ours
            .chunks(samples)
            .flat_map(|c| &c[..head.min(samples)])
            .copied()
            .collect();
        r.compare("audio_whole_head", &ours, &golden, Kind::Vae);
    }
    Ok(())
}

/// Weights with their norm folded in, in the order of the file.
pub fn weight_norm(b: &Bench, g: &Golden, r: &mut Reporter, vae: &LoadedVae) -> Result<()> {
    for name in g.names() {
        let golden = g.array(name)?;
        let decl = WeightDecl {
            name: name.strip_suffix(".weight").unwrap_or(name).to_string(),
            stored: golden.shape.clone(),
            shape: golden.shape.clone(),
            form: WeightForm::WeightNorm([0, 1, 2]),
            widen: false,
        };
        let region = vae.weights.region(&*b.backend, &decl, Math::F32)?;
        r.compare(
            name,
            &region.read_f32(&*b.backend)?,
            &golden,
            Kind::BlockF32,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_is_nothing() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(transposed(&x, 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transposed(&transposed(&x, 2), 3), x);
    }
}
