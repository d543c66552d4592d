//! Every operation at awkward sizes: one, odd, prime, around the edges of tiles and windows.

use crate::cases::{Case, Fill};
use engine::program::{DType, Dcw, DcwMode, Mask, Math, Op, Scalar};
use engine::sample::wavelet;

const N: Fill = Fill::Normal(1.0);
/// Norm weights, gates, scales.
const ONE: Fill = Fill::Uniform(0.5, 1.5);
const STORED: [(DType, Math); 4] = [
    (DType::F32, Math::F32),
    (DType::BF16, Math::F32),
    (DType::F16, Math::F32),
    (DType::BF16, Math::Bf16),
];

/// Every operation at awkward sizes.
pub fn conformance() -> Vec<Case> {
    [
        moving(),
        element_wise(),
        norms(),
        products(),
        attention(),
        convolutions(),
        tokens(),
        sampling(),
    ]
    .concat()
}

fn moving() -> Vec<Case> {
    let s = Scalar(0);
    vec![
        Case::new(
            Op::ConcatChannels,
            &[(&[2, 3, 1], N), (&[2, 3, 5], N), (&[2, 3, 64], N)],
        ),
        Case::new(Op::ConcatChannels, &[(&[7, 33], N)]),
        Case::new(Op::ConcatRows, &[(&[3, 1, 5], N), (&[3, 7, 5], N)]),
        Case::new(
            Op::ConcatRows,
            &[(&[2, 400, 128], N), (&[2, 311, 128], N), (&[2, 1, 128], N)],
        ),
        Case::new(Op::SliceRows { start: 2, len: 1 }, &[(&[3, 5, 7], N)]),
        Case::new(
            Op::SliceRows {
                start: 300,
                len: 701,
            },
            &[(&[2, 1001, 100], N)],
        ),
        Case::new(Op::PadRows { rows: 0 }, &[(&[2, 3, 5], N)]),
        Case::new(Op::PadRows { rows: 3 }, &[(&[3, 2, 5], N)]),
        Case::new(Op::PadRows { rows: 1 }, &[(&[2, 999, 97], N)]),
        Case::new(Op::SelectRow { index: s, rows: 3 }, &[(&[5, 7], N)]).scalars(&[3.2]),
        Case::new(Op::SelectRow { index: s, rows: 1 }, &[(&[4, 9], N)]).scalars(&[99.0]),
        Case::new(Op::SelectRow { index: s, rows: 2 }, &[(&[4, 11], N)]).scalars(&[-1.0]),
        Case::new(Op::SelectSlab { index: s }, &[(&[4, 3, 5], N)]).scalars(&[1.6]),
        Case::new(Op::SelectSlab { index: s }, &[(&[2, 700, 300], N)]).scalars(&[1.0]),
        Case::new(Op::PrependRow, &[(&[3, 5, 7], N), (&[7], N)]),
        Case::new(Op::PrependRow, &[(&[501, 5, 67], N), (&[67], N)]),
        Case::new(Op::RepeatAdd, &[(&[3, 7], N), (&[5, 7], N)]),
        Case::new(Op::RepeatAdd, &[(&[301, 129], N), (&[5, 129], N)]),
        Case::new(
            Op::WriteRows,
            &[
                (&[3, 9, 2, 5], N),
                (&[3, 4, 2, 5], N),
                (&[3], Fill::Below(6)),
            ],
        ),
        Case::new(
            Op::WriteRows,
            &[(&[1, 7, 3], N), (&[1, 7, 3], N), (&[1], Fill::Below(1))],
        ),
        Case::new(
            Op::WriteRows,
            &[
                (&[3, 9, 2, 5], N),
                (&[3, 4, 2, 5], N),
                (&[3], Fill::Below(6)),
            ],
        )
        .kept(DType::BF16),
        Case::new(Op::Embed, &[(&[2, 5], Fill::Below(11)), (&[11, 7], N)]),
        Case::new(Op::Embed, &[(&[301], Fill::Below(97)), (&[97, 257], N)])
            .stored(DType::BF16, Math::F32),
        Case::new(Op::Embed, &[(&[3, 1], Fill::Below(5)), (&[5, 33], N)])
            .stored(DType::F16, Math::F32),
    ]
}

fn element_wise() -> Vec<Case> {
    let mut cases = Vec::new();
    for shape in [
        &[1usize, 1, 1][..],
        &[2, 3, 5],
        &[3, 101, 67],
        &[1, 37, 2048],
    ] {
        let (b, c) = (shape[0], shape[2]);
        let (rows, v): (&[usize], &[usize]) = (&[b, c], &[c]);
        let combine = Op::Combine {
            a: Scalar(0),
            b: Scalar(1),
        };
        cases.extend([
            Case::new(Op::Add, &[(shape, N), (shape, N)]),
            Case::new(Op::Mul, &[(shape, N), (shape, N)]),
            Case::new(Op::Silu, &[(shape, Fill::Normal(4.0))]),
            Case::new(Op::AddVector, &[(shape, N), (v, N)]),
            Case::new(Op::MulVector, &[(shape, N), (v, N)]),
            Case::new(Op::MulRows, &[(shape, N), (rows, N)]),
            Case::new(Op::Modulate, &[(shape, N), (rows, N), (rows, N)]),
            Case::new(combine, &[(shape, N), (shape, N)]).scalars(&[0.3, -1.7]),
            Case::new(
                Op::SelectByMask,
                &[(&shape[..2], Fill::Mask), (shape, N), (shape, N)],
            ),
            Case::new(Op::GatedAdd, &[(shape, N), (shape, N), (rows, N)]),
            Case::new(
                Op::Snake,
                &[
                    (shape, Fill::Normal(3.0)),
                    (v, Fill::Uniform(-1.0, 3.0)),
                    (v, N),
                ],
            ),
        ]);
    }
    cases.push(Case::new(
        Op::Silu,
        &[(&[4, 70_001], Fill::Uniform(-100.0, 100.0))],
    ));
    for (n, dim) in [(1, 2), (9, 256), (3, 10)] {
        let t: &[usize] = &[n];
        cases.push(Case::new(
            Op::TimeSinusoid { dim },
            &[(t, Fill::Uniform(0.0, 1.0))],
        ));
    }
    cases
}

fn norms() -> Vec<Case> {
    let eps = 1e-6;
    let mut cases = Vec::new();
    for (shape, deviation) in [
        (&[2, 3, 5][..], 1.0),
        (&[1, 1, 1], 1.0),
        (&[2, 67, 2048], 1e3),
        (&[3, 5, 1023], 1e-4),
    ] {
        let rows: &[usize] = &[shape[0], shape[2]];
        let x = (shape, Fill::Normal(deviation));
        let v: &[usize] = &[shape[2]];
        cases.push(Case::new(Op::RmsNorm { eps }, &[x, (v, ONE)]));
        cases.push(Case::new(
            Op::RmsNormModulate { eps },
            &[x, (v, ONE), (rows, N), (rows, N)],
        ));
    }
    for shape in [
        [1, 1, 1, 2],
        [2, 7, 3, 16],
        [1, 5, 2, 64],
        [2, 125, 16, 128],
        [1, 3, 1, 10],
    ] {
        let table: &[usize] = &[shape[1], shape[3] / 2];
        let head: &[usize] = &[shape[3]];
        let (cos, sin) = ((table, Fill::Cos), (table, Fill::Sin));
        cases.push(Case::new(Op::Rope, &[(&shape, N), cos, sin]));
        cases.push(Case::new(
            Op::NormRope { eps },
            &[(&shape, N), (head, ONE), cos, sin],
        ));
        // Positions per item.
        let table: &[usize] = &[shape[0], shape[1], shape[3] / 2];
        let (cos, sin) = ((table, Fill::Cos), (table, Fill::Sin));
        cases.push(Case::new(Op::Rope, &[(&shape, N), cos, sin]));
        cases.push(Case::new(
            Op::NormRope { eps },
            &[(&shape, N), (head, ONE), cos, sin],
        ));
    }
    cases
}

fn products() -> Vec<Case> {
    let mut cases = Vec::new();
    // (M, K, N): single rows (decoding), one more and one less than tiles, odd everything.
    let sizes = [
        (1, 1, 1),
        (1, 64, 33),
        (2, 130, 257),
        (3, 7, 5),
        (12, 32, 32),
        (13, 96, 65),
        (7, 1025, 31),
        (125, 256, 130),
        (67, 128, 2),
        (257, 64, 48),
        // Rows without a next tile, sums in shares, words that straddle quads.
        (17, 260, 65),
        (33, 1025, 36),
        (40, 776, 64),
        (300, 36, 140),
        (4, 2048, 10),
        (16, 72, 9),
    ];
    for (m, k, n) in sizes {
        let w = Fill::Normal(1.0 / (k as f32).sqrt());
        let (x, w, b): ([usize; 2], _, [usize; 1]) = ([m, k], ([n, k], w), [n]);
        for (dtype, math) in STORED {
            cases.push(Case::new(Op::Linear, &[(&x, N), (&w.0, w.1), (&b, N)]).stored(dtype, math));
            cases.push(
                Case::new(Op::SwiGlu, &[(&x, N), (&w.0, w.1), (&w.0, w.1)]).stored(dtype, math),
            );
        }
    }
    cases.push(
        Case::new(Op::Linear, &[(&[2, 3, 4, 24], N), (&[17, 24], N)])
            .stored(DType::F32, Math::Bf16),
    );
    cases
}

fn attention() -> Vec<Case> {
    let mut cases = Vec::new();
    // (B, T, S, heads, key/value heads, D, mask, lengths)
    let sizes = [
        (1, 1, 1, 1, 1, 16, Mask::Full, false),
        (2, 6, 6, 4, 2, 16, Mask::Full, false),
        (2, 5, 37, 4, 2, 16, Mask::Full, true),
        (1, 131, 129, 3, 1, 64, Mask::Full, false),
        (2, 61, 300, 4, 2, 128, Mask::Full, true),
        (1, 17, 17, 2, 1, 10, Mask::Full, false),
        (1, 9, 9, 2, 2, 128, Mask::Causal, false),
        (2, 70, 141, 4, 2, 128, Mask::Causal, true),
        (1, 1, 200, 4, 2, 64, Mask::Causal, false),
        (4, 1, 200, 4, 2, 128, Mask::Causal, true),
        (5, 7, 40, 6, 2, 64, Mask::Causal, true),
        (2, 1, 131, 3, 1, 160, Mask::Causal, true),
        (1, 2, 67, 20, 2, 96, Mask::Causal, true),
        (2, 3, 65, 9, 3, 36, Mask::Full, true),
        (3, 130, 300, 2, 1, 16, Mask::Causal, true),
        (2, 33, 33, 2, 1, 16, Mask::Window(5), false),
        (1, 301, 301, 2, 1, 128, Mask::Window(128), false),
        (2, 300, 300, 2, 2, 64, Mask::Window(7), true),
        (1, 20, 20, 2, 1, 128, Mask::Window(0), false),
        (1, 30, 30, 2, 1, 128, Mask::Window(1000), false),
        // Around the edges of tiles of 32 and 64 queries and of 64 keys.
        (1, 32, 64, 2, 1, 128, Mask::Full, false),
        (2, 65, 65, 2, 2, 128, Mask::Full, true),
        (1, 64, 64, 2, 1, 128, Mask::Causal, false),
        (3, 33, 129, 2, 1, 128, Mask::Causal, true),
        (1, 19, 63, 16, 8, 128, Mask::Causal, false),
        (1, 200, 200, 2, 1, 128, Mask::Window(33), false),
        (2, 129, 129, 2, 2, 128, Mask::Window(64), true),
        // Few queries against blocks of 128 keys.
        (1, 1, 1, 2, 1, 128, Mask::Causal, false),
        (2, 1, 129, 16, 8, 128, Mask::Causal, true),
        (1, 16, 128, 4, 2, 128, Mask::Full, false),
        (4, 16, 260, 8, 2, 128, Mask::Causal, true),
        (2, 5, 300, 6, 2, 128, Mask::Full, true),
    ];
    for (b, t, s, h, g, d, mask, lengths) in sizes {
        let (q, kv): ([usize; 4], [usize; 4]) = ([b, t, h, d], [b, s, g, d]);
        let rows: [usize; 1] = [b];
        let mut ins: Vec<(&[usize], Fill)> = vec![(&q, Fill::Normal(2.0)), (&kv, N), (&kv, N)];
        if lengths {
            ins.push((&rows, Fill::Lengths(s)));
        }
        for math in [Math::F32, Math::Bf16] {
            let case = Case::new(Op::Attention { mask }, &ins).stored(DType::F32, math);
            cases.extend([case.clone(), case.kept(DType::BF16)]);
        }
    }
    cases.extend(attention_weights());
    // Peaked scores, as in the first layer of the model.
    cases.push(Case::new(
        Op::Attention { mask: Mask::Full },
        &[
            (&[1, 40, 2, 128], Fill::Normal(20.0)),
            (&[1, 150, 1, 128], Fill::Normal(5.0)),
            (&[1, 150, 1, 128], N),
        ],
    ));
    cases
}

fn attention_weights() -> Vec<Case> {
    let mut cases = Vec::new();
    // (B, T, S, heads, key/value heads, D, mask, lengths, chosen heads)
    let sizes = [
        (1, 1, 1, 1, 1, 16, Mask::Full, false, &[0][..]),
        (2, 5, 37, 4, 2, 16, Mask::Full, true, &[3, 0]),
        (1, 131, 129, 3, 1, 64, Mask::Full, false, &[1]),
        (2, 65, 300, 4, 2, 128, Mask::Full, true, &[0, 1, 2, 3]),
        (1, 17, 17, 2, 1, 10, Mask::Full, false, &[1, 1]),
        (2, 70, 141, 4, 2, 128, Mask::Causal, true, &[2]),
        (2, 33, 33, 2, 1, 16, Mask::Window(5), false, &[0]),
        (2, 100, 100, 2, 2, 64, Mask::Window(7), true, &[1, 0]),
    ];
    for (b, t, s, h, g, d, mask, lengths, heads) in sizes {
        let (q, k, rows) = ([b, t, h, d], [b, s, g, d], [b]);
        let mut ins: Vec<(&[usize], Fill)> = vec![(&q, Fill::Normal(2.0)), (&k, N)];
        if lengths {
            ins.push((&rows, Fill::Lengths(s)));
        }
        let heads = heads.to_vec();
        let op = Op::AttentionWeights { mask, heads };
        for math in [Math::F32, Math::Bf16] {
            let case = Case::new(op.clone(), &ins).stored(DType::F32, math);
            cases.extend([case.clone(), case.kept(DType::BF16)]);
        }
    }
    cases
}

fn convolutions() -> Vec<Case> {
    let mut cases = Vec::new();
    // (B, T, Cin, Cout, K, dilation, stride, pad)
    let sizes = [
        (1, 1, 1, 1, 1, 1, 1, 0),
        (2, 31, 3, 5, 7, 1, 1, 3),
        (1, 50, 16, 32, 7, 3, 1, 9),
        (2, 67, 32, 16, 7, 9, 1, 27),
        (1, 130, 64, 64, 1, 1, 1, 0),
        (1, 9, 64, 128, 7, 1, 1, 3),
        (1, 300, 128, 2, 7, 1, 1, 3),
        (1, 33, 8, 12, 4, 1, 2, 1),
        (2, 121, 16, 20, 20, 1, 10, 5),
        (1, 40, 2, 6, 12, 1, 6, 3),
    ];
    for (b, t, cin, cout, k, dilation, stride, pad) in sizes {
        let w = Fill::Normal(1.0 / ((k * cin) as f32).sqrt());
        let (x, w, bias): ([usize; 3], _, [usize; 1]) = ([b, t, cin], ([cout, k, cin], w), [cout]);
        let c: [usize; 1] = [cin];
        for (dtype, math) in STORED {
            let op = Op::Conv1d {
                dilation,
                stride,
                pad,
            };
            cases.push(
                Case::new(op.clone(), &[(&x, N), (&w.0, w.1), (&bias, N)]).stored(dtype, math),
            );
            if stride > 1 {
                continue;
            }
            let op = Op::SnakeConv1d { dilation, pad };
            let snake = [
                (&x[..], N),
                (&c[..], Fill::Normal(0.5)),
                (&c[..], Fill::Normal(0.5)),
            ];
            let ins = [snake[0], snake[1], snake[2], (&w.0, w.1), (&bias, N)];
            cases.push(
                Case::new(op.clone(), &ins[..if t % 2 == 0 { 4 } else { 5 }]).stored(dtype, math),
            );
        }
    }
    // (B, T, Cin, Cout, K, stride, pad)
    let transposed = [
        (1, 1, 1, 1, 2, 1, 0),
        (2, 9, 16, 8, 20, 10, 5),
        (1, 31, 32, 16, 12, 6, 3),
        (1, 17, 5, 3, 8, 4, 2),
        (2, 8, 64, 32, 4, 2, 1),
        (1, 11, 4, 6, 5, 3, 1),
        (1, 6, 4, 4, 3, 4, 0),
    ];
    for (b, t, cin, cout, k, stride, pad) in transposed {
        let w = Fill::Normal(1.0 / ((2 * cin) as f32).sqrt());
        let (x, w, bias): ([usize; 3], _, [usize; 1]) = ([b, t, cin], ([k, cout, cin], w), [cout]);
        let c: [usize; 1] = [cin];
        for (dtype, math) in STORED {
            let op = Op::ConvTranspose1d { stride, pad };
            cases.push(Case::new(op, &[(&x, N), (&w.0, w.1), (&bias, N)]).stored(dtype, math));
            let op = Op::SnakeConvTranspose1d { stride, pad };
            let half = Fill::Normal(0.5);
            let ins = [
                (&x[..], N),
                (&c[..], half),
                (&c[..], half),
                (&w.0, w.1),
                (&bias, N),
            ];
            cases.push(Case::new(op, &ins).stored(dtype, math));
        }
    }
    cases
}

fn tokens() -> Vec<Case> {
    let model = vec![8, 8, 8, 5, 5, 5];
    vec![
        Case::new(
            Op::FsqEncode {
                levels: model.clone(),
            },
            &[(&[997, 6], Fill::Normal(1.5))],
        ),
        Case::new(Op::FsqEncode { levels: vec![3] }, &[(&[1, 1], N)]),
        Case::new(
            Op::FsqDecode { levels: model },
            &[(&[2003], Fill::Below(64_000))],
        ),
        Case::new(
            Op::FsqDecode { levels: vec![2, 7] },
            &[(&[1], Fill::Below(14))],
        ),
    ]
}

fn sampling() -> Vec<Case> {
    let mut cases = Vec::new();
    let (scale, t) = (Scalar(0), Scalar(1));
    for shape in [
        &[1usize, 1, 1][..],
        &[2, 31, 64],
        &[3, 17, 5],
        &[1, 257, 19],
    ] {
        let three = [(shape, N), (shape, N), (shape, N)];
        for (momentum, limit, eta) in [(-0.75, 2.5, 0.0), (0.0, 0.0, 0.3), (0.5, 0.1, 1.0)] {
            let op = Op::Apg {
                scale,
                momentum,
                limit,
                eta,
            };
            cases.push(Case::new(op, &three).scalars(&[7.0]));
        }
        for (clip, renorm) in [(true, false), (false, false), (true, true)] {
            // With one frame of one channel the vectors are parallel: nothing to rotate.
            if shape[2] > 1 {
                let op = Op::Adg {
                    scale,
                    t,
                    clip,
                    renorm,
                };
                cases.push(Case::new(op, &three).scalars(&[4.5, 0.35]));
            }
        }
        for limit in [0.1, 10.0] {
            cases.push(Case::new(Op::ClampNorm { limit }, &three[..2]));
        }
        for (mode, wavelet) in [
            (DcwMode::Low, "haar"),
            (DcwMode::High, "haar"),
            (DcwMode::Double, "haar"),
            (DcwMode::Pixel, "haar"),
            (DcwMode::Double, "db4"),
            (DcwMode::Low, "sym8"),
        ] {
            let filter = wavelet::filter(wavelet).unwrap_or_default();
            let dcw = Dcw {
                mode,
                low: 0.3,
                high: 0.1,
                filter,
            };
            cases.push(Case::new(Op::Dcw { dcw, t: Scalar(0) }, &three[..2]).scalars(&[0.64]));
        }
    }
    cases
}
