//! Random weights: a counter-based generator, and how large each kind of tensor must be for
//! activations to stay around one.

use super::published::Kind;
use crate::models::layout::Named;
use half::bf16;
use std::collections::HashMap;

/// Mean and standard deviation of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f32,
    /// Standard deviation.
    pub std: f32,
}

/// Decides the spread of every tensor of one checkpoint.
pub struct Rule<'a> {
    kind: Kind,
    shapes: HashMap<&'a str, &'a [usize]>,
}

impl<'a> Rule<'a> {
    /// The rule for a checkpoint that holds `tensors`.
    pub fn new(kind: Kind, tensors: &'a [Named]) -> Self {
        Rule {
            kind,
            shapes: tensors
                .iter()
                .map(|(n, s)| (n.as_str(), s.as_slice()))
                .collect(),
        }
    }

    /// Spread of the elements of `name`.
    pub fn spread(&self, name: &str, shape: &[usize]) -> Spread {
        let around = |mean, std| Spread { mean, std };
        if let Some(conv) = name.strip_suffix(".weight_g") {
            return around(self.gain(conv), 0.02);
        }
        if name.ends_with(".weight_v") {
            return around(0.0, 1.0);
        }
        if name.ends_with(".alpha") || name.ends_with(".beta") {
            return around(0.0, 0.2);
        }
        if name.ends_with(".bias") {
            return around(0.0, 0.02);
        }
        if shape.len() == 1 {
            return around(1.0, 0.05);
        }
        let fan_in = match shape {
            // The transposed convolution of the output has its inputs first.
            [inputs, ..] if name.ends_with("proj_out.1.weight") => *inputs,
            // Lyrics reach the DiT as rows of the text encoder's table, so these have length one
            // per element; a language model also uses its table as the head.
            _ if name == "embed_tokens.weight" && self.kind == Kind::Text => 1,
            [1, .., width] if name.contains("table") => *width,
            [1, ..] => 1,
            [_, rest @ ..] => rest.iter().product(),
            [] => 1,
        };
        around(0.0, 1.0 / (fan_in as f32).sqrt())
    }

    /// Length of the rows of a normalised convolution, so that its output is about as large as
    /// its input: a transposed one has its inputs as rows, of which `K / stride = 2` taps meet
    /// in an output sample.
    fn gain(&self, conv: &str) -> f32 {
        if conv.ends_with("conv_t1") {
            let v = self.shapes.get(format!("{conv}.weight_v").as_str());
            if let Some(&[inputs, outputs, taps]) = v.copied() {
                return 0.8 * ((taps * outputs) as f32 / (2 * inputs) as f32).sqrt();
            }
        }
        if conv.contains("res_unit") && conv.ends_with("conv2") {
            return 0.3;
        }
        // The last layer leaves room below full scale.
        if conv == "decoder.conv2" { 0.25 } else { 0.8 }
    }
}

/// Quantiles of the normal distribution at `(i + 1/2) / 65536`.
pub struct Gauss(Vec<f32>);

impl Gauss {
    /// Tabulates them by walking up the distribution function.
    pub fn new() -> Self {
        const STEP: f64 = 1e-4;
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let mut table = Vec::with_capacity(1 << 16);
        let (mut x, mut below) = (-6.0, 0.0);
        while table.len() < 1 << 15 {
            let next = below + STEP * density(x + STEP / 2.0);
            while table.len() < 1 << 15 {
                let p = (table.len() as f64 + 0.5) / 65536.0;
                if p > next && x < 0.0 {
                    break;
                }
                table.push((x + STEP * ((p - below) / (next - below)).min(1.0)) as f32);
            }
            (x, below) = (x + STEP, next);
        }
        let upper: Vec<f32> = table.iter().rev().map(|q| -q).collect();
        table.extend(upper);
        Gauss(table)
    }

    /// The bf16 bits of every quantile, scaled and moved.
    pub fn bits(&self, spread: Spread) -> Vec<u16> {
        self.0
            .iter()
            .map(|q| bf16::from_f32(spread.mean + spread.std * q).to_bits())
            .collect()
    }

    /// The quantiles themselves.
    pub fn quantiles(&self) -> &[f32] {
        &self.0
    }
}

impl Default for Gauss {
    fn default() -> Self {
        Gauss::new()
    }
}

/// The stream of one tensor: four 16-bit numbers from each counter.
#[derive(Debug, Clone, Copy)]
pub struct Stream(u64);

impl Stream {
    /// The stream of `name` under `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a, 64 bits.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Stream(mix(hash ^ mix(seed)))
    }

    /// A seed derived from this stream.
    pub fn key(self) -> u64 {
        self.0
    }

    /// Numbers `4 counter .. 4 counter + 4`.
    pub fn quad(self, counter: u64) -> [u16; 4] {
        let x = mix(self
            .0
            .wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        [
            x as u16,
            (x >> 16) as u16,
            (x >> 32) as u16,
            (x >> 48) as u16,
        ]
    }

    /// Fills `out` with elements `first..` of a tensor whose quantiles are `table`. `first` is a
    /// multiple of 4.
    pub fn fill<T: Copy>(self, table: &[T], first: u64, out: &mut [T]) {
        for (i, group) in out.chunks_mut(4).enumerate() {
            for (o, n) in group.iter_mut().zip(self.quad(first / 4 + i as u64)) {
                *o = table[usize::from(n)];
            }
        }
    }
}

/// The finaliser of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_normal() {
        let q = Gauss::new().0;
        assert_eq!(q.len(), 65536);
        assert!(q.is_sorted());
        let var: f64 = q.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 65536.0;
        assert!((var - 1.0).abs() < 1e-3, "{var}");
        // Known values of the distribution: the 97.5 % and the 99.9 % quantile.
        assert!((q[(0.975f64 * 65536.0) as usize] - 1.96).abs() < 1e-3);
        assert!((q[(0.999f64 * 65536.0) as usize] - 3.0902).abs() < 5e-3);
    }

    #[test]
    fn streams_differ_by_seed_and_name_and_can_be_cut_anywhere() {
        let table: Vec<u32> = (0..65536).collect();
        let draw = |seed, name| {
            let mut out = vec![0; 64];
            Stream::new(seed, name).fill(&table, 0, &mut out);
            out
        };
        assert_ne!(draw(0, "a"), draw(1, "a"));
        assert_ne!(draw(0, "a"), draw(0, "b"));
        let mut tail = vec![0; 10];
        Stream::new(0, "a").fill(&table, 8, &mut tail);
        assert_eq!(tail, draw(0, "a")[8..18]);
    }

    #[test]
    fn every_kind_of_tensor_has_its_spread() {
        let tensors: Vec<Named> = vec![("decoder.block.0.conv_t1.weight_v".into(), vec![8, 4, 20])];
        let vae = Rule::new(Kind::Vae, &tensors);
        let g = vae
            .spread("decoder.block.0.conv_t1.weight_g", &[8, 1, 1])
            .mean;
        assert!((g - 0.8 * 5f32.sqrt()).abs() < 1e-6);
        let dit = Rule::new(Kind::Dit, &[]);
        assert_eq!(dit.spread("decoder.norm_out.weight", &[64]).mean, 1.0);
        assert_eq!(
            dit.spread("decoder.proj_out.1.weight", &[64, 16, 2]).std,
            0.125
        );
        assert_eq!(
            dit.spread("decoder.proj_in.1.weight", &[64, 32, 2]).std,
            0.125
        );
        assert_eq!(
            dit.spread("decoder.layers.0.scale_shift_table", &[1, 6, 64])
                .std,
            0.125
        );
        assert_eq!(dit.spread("null_condition_emb", &[1, 1, 64]).std, 1.0);
        let text = Rule::new(Kind::Text, &[]);
        assert_eq!(text.spread("embed_tokens.weight", &[99, 64]).std, 1.0);
        assert_eq!(
            Rule::new(Kind::Lm, &[])
                .spread("embed_tokens.weight", &[99, 64])
                .std,
            0.125
        );
    }
}
