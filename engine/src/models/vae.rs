//! The audio autoencoder (Oobleck): latents at 25 Hz to stereo PCM at 48 kHz and the blocks that
//! the way back ([`super::vae_encoder`]) shares.

use super::config::VaeConfig;
use crate::error::Result;
use crate::program::{Builder, Math, Op, Program, Val, WeightDecl, WeightForm};

/// Taps of every convolution that keeps the length, but for the second of a residual unit.
pub(super) const KERNEL: usize = 7;

/// Dilations of the three residual units of a block.
pub(super) const DILATIONS: [usize; 3] = [1, 3, 9];

/// Frames a decoder tile must see on each side of its core so that the core equals the untiled
/// result: the receptive field of one frame's samples, followed from the audio back to the
/// latents. 9 for the published strides.
pub fn decode_overlap(c: &VaeConfig) -> usize {
    let reach = (KERNEL / 2) as i64;
    let (mut first, mut last) = (-reach, c.hop() as i64 - 1 + reach);
    let units = reach * DILATIONS.iter().sum::<usize>() as i64;
    for stride in &c.downsampling_ratios {
        let (pad, stride) = (stride.div_ceil(2) as i64, *stride as i64);
        // Sample `o` is made of inputs `i` with 0 <= o + pad - stride i < 2 stride.
        first = (first - units + pad - stride).div_euclid(stride);
        last = (last + units + pad).div_euclid(stride);
    }
    (reach - first).max(last + reach).max(0) as usize
}

/// Input `latents` `(1, T, C)`, output `audio` `(1, hop T, channels)`; not limited in level.
pub fn vae_decoder(c: &VaeConfig, math: Math, frames: usize) -> Result<Program> {
    let mut b = Builder::new("vae_decoder", math);
    let multiples: Vec<usize> = std::iter::once(1)
        .chain(c.channel_multiples.iter().copied())
        .collect();
    let width = |i: usize| c.decoder_channels * multiples[i];
    let blocks = c.downsampling_ratios.len();
    let x = b.input("latents", &[1, frames, c.decoder_input_channels]);
    let mut x = conv(
        &mut b,
        "decoder.conv1",
        x,
        Conv::plain(width(blocks), KERNEL),
    );
    b.tap("dec.conv1", x);
    for i in 0..blocks {
        let stride = c.downsampling_ratios[blocks - 1 - i];
        x = block(
            &mut b,
            &format!("decoder.block.{i}"),
            x,
            width(blocks - 1 - i),
            stride,
            i,
        );
    }
    let last = Conv {
        bias: false,
        snake: Some("decoder.snake1"),
        ..Conv::plain(c.audio_channels, KERNEL)
    };
    let x = conv(&mut b, "decoder.conv2", x, last);
    b.output("audio", x);
    b.finish()
}

/// Up-sampling by `stride` and three residual units. x `(1, T, Cin)`, out `(1, stride T, out)`.
fn block(b: &mut Builder, name: &str, x: Val, out: usize, stride: usize, index: usize) -> Val {
    let cin = b.shape(x).last().copied().unwrap_or(0);
    let (alpha, beta) = snake_weights(b, &format!("{name}.snake1"), cin);
    let w = b.weight_decl(WeightDecl {
        name: format!("{name}.conv_t1"),
        stored: vec![cin, out, 2 * stride],
        shape: vec![2 * stride, out, cin],
        form: WeightForm::WeightNorm([2, 1, 0]),
        widen: false,
    });
    let bias = b.vector(format!("{name}.conv_t1.bias"), &[out], &[out]);
    let op = Op::SnakeConvTranspose1d {
        stride,
        pad: stride.div_ceil(2),
    };
    let mut x = b.op(op, &[x, alpha, beta, w, bias]);
    b.tap(format!("dec.block{index}.conv_t1"), x);
    for (j, dilation) in DILATIONS.into_iter().enumerate() {
        x = res_unit(b, &format!("{name}.res_unit{}", j + 1), x, dilation);
        b.tap(format!("dec.block{index}.res_unit{}", j + 1), x);
    }
    b.tap(format!("dec.block{index}"), x)
}

/// `x + conv2(snake2(conv1(snake1(x))))`, kernels 7 and 1.
pub(super) fn res_unit(b: &mut Builder, name: &str, x: Val, dilation: usize) -> Val {
    let c = b.shape(x).last().copied().unwrap_or(0);
    let (snake1, snake2) = (format!("{name}.snake1"), format!("{name}.snake2"));
    let first = Conv {
        dilation,
        snake: Some(&snake1),
        ..Conv::plain(c, KERNEL)
    };
    let h = conv(b, &format!("{name}.conv1"), x, first);
    let second = Conv {
        snake: Some(&snake2),
        ..Conv::plain(c, 1)
    };
    let h = conv(b, &format!("{name}.conv2"), h, second);
    b.add(x, h)
}

/// A convolution that keeps the length, or divides it by its stride.
pub(super) struct Conv<'a> {
    pub out: usize,
    pub kernel: usize,
    pub dilation: usize,
    pub stride: usize,
    pub bias: bool,
    /// Name of the activation in front.
    pub snake: Option<&'a str>,
}

impl Conv<'_> {
    pub fn plain(out: usize, kernel: usize) -> Self {
        Conv {
            out,
            kernel,
            dilation: 1,
            stride: 1,
            bias: true,
            snake: None,
        }
    }

    /// Down-sampling by `stride` with a kernel of twice that.
    pub fn down(out: usize, stride: usize) -> Self {
        Conv {
            stride,
            ..Conv::plain(out, 2 * stride)
        }
    }

    /// Zeros on each side.
    fn pad(&self) -> usize {
        match self.stride {
            1 => self.dilation * (self.kernel - 1) / 2,
            stride => stride.div_ceil(2),
        }
    }
}

pub(super) fn conv(b: &mut Builder, name: &str, x: Val, conv: Conv) -> Val {
    let cin = b.shape(x).last().copied().unwrap_or(0);
    // The fused operation has stride 1.
    let fused = conv.snake.is_some() && conv.stride == 1;
    let mut ins = vec![x];
    if let Some(snake) = conv.snake {
        let (alpha, beta) = snake_weights(b, snake, cin);
        ins.extend([alpha, beta]);
        if !fused {
            ins = vec![b.op(Op::Snake, &ins)];
        }
    }
    ins.push(b.weight_decl(WeightDecl {
        name: name.into(),
        stored: vec![conv.out, cin, conv.kernel],
        shape: vec![conv.out, conv.kernel, cin],
        form: WeightForm::WeightNorm([0, 2, 1]),
        widen: false,
    }));
    if conv.bias {
        ins.push(b.vector(format!("{name}.bias"), &[conv.out], &[conv.out]));
    }
    let (dilation, stride, pad) = (conv.dilation, conv.stride, conv.pad());
    let op = match fused {
        true => Op::SnakeConv1d { dilation, pad },
        false => Op::Conv1d {
            dilation,
            stride,
            pad,
        },
    };
    b.op(op, &ins)
}

fn snake_weights(b: &mut Builder, name: &str, c: usize) -> (Val, Val) {
    let shape = [1, c, 1];
    (
        b.vector(format!("{name}.alpha"), &shape, &[c]),
        b.vector(format!("{name}.beta"), &shape, &[c]),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::backend::cpu::CpuBackend;
    use crate::backend::{HostData, NoWeights, run_once};
    use std::path::Path;

    pub(in crate::models) fn config(ratios: &[usize]) -> VaeConfig {
        let text = serde_json::json!({
            "channel_multiples": vec![1; ratios.len()], "decoder_channels": 1,
            "decoder_input_channels": 1, "downsampling_ratios": ratios,
            "encoder_hidden_size": 2
        });
        VaeConfig::parse(&text.to_string(), Path::new("config.json")).unwrap()
    }

    /// Makes every weight an input, a matrix of ones and a vector of zeros: silence stays zero,
    /// and nothing cancels.
    pub(in crate::models) fn ones(program: &mut Program) -> Vec<(String, Vec<f32>)> {
        let mut ones = Vec::new();
        for info in &mut program.vals {
            if let crate::program::ValKind::Weight(decl) = &info.kind {
                let name = decl.name.clone();
                let value = if info.shape.len() > 1 { 1.0 } else { 0.0 };
                ones.push((name.clone(), vec![value; info.len()]));
                info.dtype = crate::program::DType::F32;
                info.kind = crate::program::ValKind::Input(name);
            }
        }
        ones
    }

    /// Frames on either side of a frame that change its samples, by trying.
    fn tried(c: &VaeConfig, frames: usize) -> usize {
        let mut program = vae_decoder(c, Math::F32, frames).unwrap();
        let ones = ones(&mut program);
        let cpu = CpuBackend::new(1, None).unwrap();
        let audio = |i: usize| {
            let mut latents = vec![0f32; frames];
            latents[i] = 1.0;
            let mut inputs = vec![("latents", HostData::F32(&latents))];
            inputs.extend(ones.iter().map(|(n, v)| (n.as_str(), HostData::F32(v))));
            let mut out = run_once(&cpu, &program, &NoWeights, &inputs, &[]).unwrap();
            out.take_f32("audio").unwrap()
        };
        let middle = frames / 2;
        let step = c.hop() * 2;
        let frame = middle * step..(middle + 1) * step;
        let heard = |i: &usize| audio(*i)[frame.clone()].iter().any(|x| *x != 0.0);
        let touched: Vec<usize> = (0..frames).filter(heard).collect();
        (middle - touched[0]).max(touched[touched.len() - 1] - middle)
    }

    #[test]
    fn the_overlap_is_the_receptive_field() {
        assert_eq!(decode_overlap(&config(&[2, 4, 4, 6, 10])), 9);
        for ratios in [&[2][..], &[4, 6], &[2, 4, 4]] {
            let c = config(ratios);
            let overlap = decode_overlap(&c);
            assert_eq!(tried(&c, 4 * overlap + 3), overlap, "{ratios:?}");
        }
    }
}
