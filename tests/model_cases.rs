//! The hot operations at the sizes of the 2B model, for the benches: 10 s of music is 125 rows of
//! the transformer, 60 s are 750; guidance doubles the batch, the benches do not.

use crate::cases::{Case, Fill};
use engine::program::{DType, Dcw, DcwMode, Mask, Math, Op, Scalar};
use engine::sample::wavelet;

const N: Fill = Fill::Normal(1.0);
const SMALL: Fill = Fill::Normal(0.02);
const BF16: DType = DType::BF16;

/// The cases, products in `math`.
pub fn model(math: Math) -> Vec<Case> {
    let mut cases = products(math);
    cases.extend(attention(math));
    cases.extend(vae(math));
    cases.extend(small());
    cases
}

fn products(math: Math) -> Vec<Case> {
    let linear = |m: usize, k: usize, n: usize| {
        Case::new(Op::Linear, &[(&[m, k], N), (&[n, k], SMALL)]).stored(BF16, math)
    };
    let mut cases = vec![
        linear(1, 2048, 6144),
        linear(125, 2048, 2048),
        linear(750, 2048, 2048),
    ];
    cases.push(linear(125, 6144, 2048));
    let w: (&[usize], Fill) = (&[6144, 2048], SMALL);
    cases.push(Case::new(Op::SwiGlu, &[(&[125, 2048], N), w, w]).stored(BF16, math));
    cases
}

fn attention(math: Math) -> Vec<Case> {
    let case = |t: usize, s: usize, heads: usize, mask: Mask| {
        let kv: [usize; 4] = [1, s, heads / 2, 128];
        let ins = [(&[1, t, heads, 128][..], N), (&kv[..], N), (&kv[..], N)];
        Case::new(Op::Attention { mask }, &ins).stored(DType::F32, math)
    };
    vec![
        case(125, 125, 16, Mask::Window(128)),
        case(750, 750, 16, Mask::Full),
        case(750, 750, 16, Mask::Window(128)),
        case(750, 256, 16, Mask::Full),
        case(3000, 3000, 4, Mask::Full),
        case(3000, 3000, 4, Mask::Window(128)),
        case(1, 1024, 16, Mask::Causal),
    ]
}

fn vae(math: Math) -> Vec<Case> {
    let conv = |t: usize, c: usize, k: usize, dilation: usize| {
        let op = Op::SnakeConv1d {
            dilation,
            pad: dilation * (k - 1) / 2,
        };
        let v: (&[usize], Fill) = (&[c], Fill::Normal(0.3));
        let ins = [
            (&[1, t, c][..], N),
            v,
            v,
            (&[c, k, c][..], SMALL),
            (&[c][..], N),
        ];
        Case::new(op, &ins).stored(BF16, math)
    };
    let half = Fill::Normal(0.3);
    let up = Case::new(
        Op::SnakeConvTranspose1d { stride: 6, pad: 3 },
        &[
            (&[1, 400, 1024], N),
            (&[1024], half),
            (&[1024], half),
            (&[12, 512, 1024], SMALL),
            (&[512], N),
        ],
    );
    vec![
        conv(9600, 128, 7, 1),
        conv(9600, 128, 7, 9),
        conv(9600, 128, 1, 1),
        conv(1200, 512, 7, 3),
        up.stored(BF16, math),
    ]
}

fn small() -> Vec<Case> {
    let (eps, t, h) = (1e-6, 750, 2048);
    let x: (&[usize], Fill) = (&[1, t, h], N);
    let rows: (&[usize], Fill) = (&[1, h], N);
    let heads: (&[usize], Fill) = (&[1, t, 16, 128], N);
    let angles: [usize; 2] = [t, 64];
    let latent: (&[usize], Fill) = (&[2, 1500, 64], N);
    let dcw = Dcw {
        mode: DcwMode::Double,
        low: 0.05,
        high: 0.02,
        filter: wavelet::filter("haar").unwrap_or_default(),
    };
    let apg = Op::Apg {
        scale: Scalar(0),
        momentum: -0.75,
        limit: 2.5,
        eta: 0.0,
    };
    let snake: (&[usize], Fill) = (&[1, 9600, 128], N);
    vec![
        Case::new(Op::RmsNorm { eps }, &[x, (&[h], N)]),
        Case::new(Op::RmsNormModulate { eps }, &[x, (&[h], N), rows, rows]),
        Case::new(
            Op::NormRope { eps },
            &[
                heads,
                (&[128], N),
                (&angles, Fill::Cos),
                (&angles, Fill::Sin),
            ],
        ),
        Case::new(Op::Add, &[x, x]),
        Case::new(Op::GatedAdd, &[x, x, rows]),
        Case::new(Op::Silu, &[x]),
        Case::new(Op::Snake, &[snake, (&[128], N), (&[128], N)]),
        Case::new(apg, &[latent, latent, latent]).scalars(&[7.0]),
        Case::new(Op::Dcw { dcw, t: Scalar(0) }, &[latent, latent]).scalars(&[0.5]),
    ]
}
