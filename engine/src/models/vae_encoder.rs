//! The encoder of the audio autoencoder: stereo PCM at 48 kHz to the posterior of latents at
//! 25 Hz.

use super::config::VaeConfig;
use super::vae::{Conv, DILATIONS, KERNEL, conv, res_unit};
use crate::error::Result;
use crate::program::{Builder, Math, Program};

/// Taps of the last convolution.
const LAST_KERNEL: usize = 3;

/// Frames an encoder tile must see on each side of its core so that the core equals the untiled
/// result: the receptive field of one frame, followed from the latent out to the samples. 7 for
/// the published strides.
pub fn encode_overlap(c: &VaeConfig) -> usize {
    let last = (LAST_KERNEL / 2) as i64;
    let units = (KERNEL / 2 * DILATIONS.iter().sum::<usize>()) as i64;
    let (mut first, mut end) = (-last, last);
    for stride in c.downsampling_ratios.iter().rev() {
        let (pad, stride) = (stride.div_ceil(2) as i64, *stride as i64);
        // Output q reads inputs stride q - pad .. stride q - pad + 2 stride.
        first = first * stride - pad - units;
        end = end * stride - pad + 2 * stride - 1 + units;
    }
    let (reach, hop) = ((KERNEL / 2) as i64, c.hop() as i64);
    let (before, behind) = (reach - first, end + reach - (hop - 1));
    before
        .max(behind)
        .max(0)
        .unsigned_abs()
        .div_ceil(hop as u64) as usize
}

/// Input `audio` `(1, S, channels)`; output `posterior` `(1, S / hop, 2 C)`: the mean of every
/// latent, then its scale (`std = softplus(scale) + 1e-4`).
pub fn vae_encoder(c: &VaeConfig, math: Math, samples: usize) -> Result<Program> {
    let mut b = Builder::new("vae_encoder", math);
    let widths = c.widths(c.encoder_hidden_size);
    let x = b.input("audio", &[1, samples, c.audio_channels]);
    let mut x = conv(&mut b, "encoder.conv1", x, Conv::plain(widths[0], KERNEL));
    b.tap("enc.conv1", x);
    for (i, stride) in c.downsampling_ratios.iter().enumerate() {
        let name = format!("encoder.block.{i}");
        for (j, dilation) in DILATIONS.into_iter().enumerate() {
            x = res_unit(&mut b, &format!("{name}.res_unit{}", j + 1), x, dilation);
        }
        let snake = format!("{name}.snake1");
        let down = Conv {
            snake: Some(&snake),
            ..Conv::down(widths[i + 1], *stride)
        };
        x = conv(&mut b, &format!("{name}.conv1"), x, down);
        b.tap(format!("enc.block{i}"), x);
    }
    let last = Conv {
        snake: Some("encoder.snake1"),
        ..Conv::plain(c.encoder_hidden_size, LAST_KERNEL)
    };
    let x = conv(&mut b, "encoder.conv2", x, last);
    b.output("posterior", x);
    b.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::backend::{HostData, NoWeights, run_once};
    use crate::models::vae::tests::{config, ones};

    /// Frames on either side of a frame whose samples change it, by trying.
    fn tried(c: &VaeConfig, frames: usize) -> usize {
        let samples = frames * c.hop();
        let mut program = vae_encoder(c, Math::F32, samples).unwrap();
        let ones = ones(&mut program);
        let cpu = CpuBackend::new(1, None).unwrap();
        let middle = frames / 2;
        let heard = |frame: &usize| {
            let mut audio = vec![0f32; samples * 2];
            audio[frame * c.hop() * 2..(frame + 1) * c.hop() * 2].fill(0.1);
            let mut inputs = vec![("audio", HostData::F32(&audio))];
            inputs.extend(ones.iter().map(|(n, v)| (n.as_str(), HostData::F32(v))));
            let mut out = run_once(&cpu, &program, &NoWeights, &inputs, &[]).unwrap();
            out.take_f32("posterior").unwrap()[middle * 2] != 0.0
        };
        let touched: Vec<usize> = (0..frames).filter(heard).collect();
        (middle - touched[0]).max(touched[touched.len() - 1] - middle)
    }

    #[test]
    fn the_overlap_is_the_receptive_field() {
        assert_eq!(encode_overlap(&config(&[2, 4, 4, 6, 10])), 7);
        for ratios in [&[2][..], &[4, 6], &[2, 4, 4]] {
            let c = config(ratios);
            let overlap = encode_overlap(&c);
            assert_eq!(tried(&c, 2 * overlap + 5), overlap, "{ratios:?}");
        }
    }
}
