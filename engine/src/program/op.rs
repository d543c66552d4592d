//! The closed set of operations. Each variant's doc comment is its contract and the only place
//! where it is written; [`Op::shape`] enforces it when a step is appended, and kernels then
//! assume it and check nothing.

/// Storage type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float: activations always, weights as stored.
    F32,
    /// bfloat16: weights as stored, and states that keep keys and values.
    BF16,
    /// IEEE half: weights as stored.
    F16,
    /// 32-bit integer: ids, codes, lengths.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }
}

/// How products (linears, convolutions, attention) treat their operands. Accumulation, norms,
/// softmax and the residual stream are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Math {
    /// Operands stay f32 (stored weights are widened exactly).
    F32,
    /// Operands are rounded to bf16 first.
    Bf16,
}

/// Index into the small vector of numbers that changes from run to run (`Ready::run`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scalar(pub usize);

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mask {
    /// Every key.
    Full,
    /// Keys at or before the query's position (queries are the last `T` of the `S` positions, or
    /// of the `lengths[b]` positions that a row has).
    Causal,
    /// Keys with `|i - j| <= window`.
    Window(usize),
}

/// Which part of the signal the wavelet correction pulls towards the predicted clean sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DcwMode {
    /// Low band by `t * low`.
    Low,
    /// High band by `(1 - t) * low` (the single-band mode uses the one scaler).
    High,
    /// Low band by `t * low`, high band by `(1 - t) * high`.
    Double,
    /// Every sample by `low`, no transform.
    Pixel,
}

/// Parameters of the wavelet correction.
#[derive(Debug, Clone, PartialEq)]
pub struct Dcw {
    /// Which band.
    pub mode: DcwMode,
    /// Scaler of the low band (and of single-band modes).
    pub low: f32,
    /// Scaler of the high band in [`DcwMode::Double`].
    pub high: f32,
    /// Low-pass decomposition filter of the orthogonal wavelet, in PyWavelets order; Haar is
    /// `[1/sqrt 2, 1/sqrt 2]`. The other three filters follow from it.
    pub filter: Vec<f32>,
}

/// One operation. `ins` names its inputs in order; `out` its single output.
///
/// Unless said otherwise values are f32 activations, sums are f32, results are deterministic
/// and independent of the number of threads.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    // ------------------------------------------------------------------ moving
    /// The same elements under another shape. ins: x. Costs nothing: shares x's memory.
    Reshape,
    /// `out[..., c] = concat over inputs along the last axis`. ins: 1 to 5 values with equal
    /// leading axes. f32.
    ConcatChannels,
    /// Concatenation along axis 1. ins: 1 to 5 values `(B, T_i, C)`. out `(B, sum T_i, C)`.
    ConcatRows,
    /// Rows `start..start+len` of axis 1. ins: x `(B, T, C)`. out `(B, len, C)`.
    SliceRows {
        /// First row.
        start: usize,
        /// Number of rows.
        len: usize,
    },
    /// Rows appended as zeros behind axis 1. ins: x `(B, T, C)`. out `(B, T + rows, C)`.
    PadRows {
        /// Number of zero rows.
        rows: usize,
    },
    /// `out[b, :] = table[index, :]` for every b, the row being chosen by a run-time scalar
    /// (rounded to the nearest integer, clamped to the table). ins: table `(R, C)`.
    /// out `(rows, C)`.
    SelectRow {
        /// Scalar that holds the row number.
        index: Scalar,
        /// Number of copies.
        rows: usize,
    },
    /// Slab `index` of the first axis, chosen by a run-time scalar (rounded, clamped).
    /// ins: x `(R, ...)`. out `(...)`.
    SelectSlab {
        /// Scalar that holds the slab number.
        index: Scalar,
    },
    /// `out[r, 0, :] = token`, `out[r, 1.., :] = x[r]`. ins: x `(R, T, C)`, token `(C)`.
    /// out `(R, T + 1, C)`.
    PrependRow,
    /// `out[n, j, :] = x[n, :] + pattern[j, :]`. ins: x `(N, C)`, pattern `(P, C)`.
    /// out `(N, P, C)`.
    RepeatAdd,
    /// Rows of a table. ins: ids i32 `(...)` (each in `0..V`, checked before the step runs),
    /// table weight `(V, C)` of any float dtype. out `(..., C)` f32.
    Embed,
    /// `cache[b, at[b] + t, ...] = rows[b, t, ...]`, in place. ins: cache `(B, S, ...)`, a state
    /// of the program ([`super::Builder::state`]), rows `(B, T, ...)`, at i32 `(B)` (each in
    /// `0..=S-T`, checked before the step runs). The cache is f32 or bf16; rows of f32 are rounded
    /// to the nearest bf16 (ties to even) where it is, and may be bf16 only where it is. out is
    /// the cache itself: what reads the output sees the new rows, and so does every later run.
    WriteRows,

    // ------------------------------------------------------------ element-wise
    /// `a + b`, equal shapes. May write over a.
    Add,
    /// `a * b`, equal shapes. May write over a.
    Mul,
    /// `x * sigmoid(x)`. May write over x.
    Silu,
    /// `out[..., c] = x[..., c] + v[c]`. ins: x, v `(C)`. May write over x.
    AddVector,
    /// `out[..., c] = x[..., c] * v[c]`. ins: x, v `(C)`. May write over x.
    MulVector,
    /// `out[b, t, c] = x[b, t, c] * v[b, c]`. ins: x `(B, T, C)`, v `(B, C)`. May write over x.
    MulRows,
    /// `out[b, t, c] = x[b, t, c] * (1 + scale[b, c]) + shift[b, c]`. ins: x `(B, T, C)`,
    /// scale `(B, C)`, shift `(B, C)`. May write over x.
    Modulate,
    /// `a * x + b * y` with run-time factors. ins: x, y of equal shape. May write over x.
    Combine {
        /// Factor of x.
        a: Scalar,
        /// Factor of y.
        b: Scalar,
    },
    /// `m != 0 ? a : b` per row. ins: m `(B, T)` f32, a `(B, T, C)`, b `(B, T, C)`.
    SelectByMask,

    // ----------------------------------------------------------------- network
    /// `x W^T (+ b)`. ins: x `(..., K)`, W weight `(N, K)` of any float dtype, optionally
    /// b `(N)` f32. out `(..., N)`. Operands by the program's [`Math`].
    Linear,
    /// `x * rsqrt(mean_c x^2 + eps) * w`. ins: x `(..., C)`, w `(C)`. May write over x.
    RmsNorm {
        /// Added to the mean square.
        eps: f32,
    },
    /// Rotary embedding, halves layout: with `h = D/2`,
    /// `out[.., k] = x[.., k] cos[t, k] - x[.., k+h] sin[t, k]`,
    /// `out[.., k+h] = x[.., k+h] cos[t, k] + x[.., k] sin[t, k]`, `k < h`.
    /// ins: x `(B, T, H, D)`, cos and sin `(T, D/2)`, or `(B, T, D/2)` where every item has
    /// positions of its own. May write over x.
    Rope,
    /// Softmax attention with grouped heads: query head h uses key/value head
    /// `h / (H / G)`, scale `1/sqrt(D)`. ins: q `(B, T, H, D)`, k `(B, S, G, D)`,
    /// v `(B, S, G, D)`, optionally lengths i32 `(B)`: row b sees keys `0..lengths[b]` only
    /// (each in `1..=S`); with [`Mask::Causal`] its queries are the last `T` of these.
    /// Keys and values are f32, or both bf16 (a cache), which is widened exactly.
    /// out `(B, T, H, D)`. Never forms the full score matrix; softmax in f32.
    /// Keys that a mask or length hides are not read; a query that sees none gives zeros.
    Attention {
        /// Which keys a query sees.
        mask: Mask,
    },
    /// The weights by which [`Op::Attention`] mixes the values, of the query heads `heads` alone:
    /// `out[b, n, t, s]` is what query t of head `heads[n]` gives to key s, 0 for a key that the
    /// mask or the length hides. Of one query they add up to 1, or to 0 when it sees no key.
    /// ins: q `(B, T, H, D)`, k `(B, S, G, D)` f32 or bf16, optionally lengths i32 `(B)`, all as
    /// there. out `(B, heads.len(), T, S)`; operands of the scores by the program's [`Math`], the
    /// weights themselves are not rounded. Every head of `heads` is below H.
    AttentionWeights {
        /// Which keys a query sees.
        mask: Mask,
        /// Query heads, at least one, in the order of the output.
        heads: Vec<usize>,
    },
    /// `[cos(1000 t w_i) | sin(1000 t w_i)]`, `w_i = exp(-ln(10000) i / (dim/2))`.
    /// ins: t `(N)`. out `(N, dim)`.
    TimeSinusoid {
        /// Width of the embedding, even.
        dim: usize,
    },

    // ------------------------------------------------------------- convolution
    /// `out[b, t, o] = bias[o] + sum_{k, c} x[b, t*stride + k*dilation - pad, c] W[o, k, c]`,
    /// zeros outside. ins: x `(B, T, Cin)`, W weight `(Cout, K, Cin)`, optionally
    /// bias `(Cout)`. out `(B, (T + 2 pad - dilation (K-1) - 1) / stride + 1, Cout)`.
    Conv1d {
        /// Distance between taps.
        dilation: usize,
        /// Distance between outputs.
        stride: usize,
        /// Zeros on each side.
        pad: usize,
    },
    /// Transposed convolution with kernel `K = 2*stride` or any `K`:
    /// `out[b, t, o] = bias[o] + sum over (i, k) with i*stride + k - pad = t, c of
    /// x[b, i, c] W[k, o, c]`. ins: x `(B, T, Cin)`, W weight `(K, Cout, Cin)`,
    /// bias `(Cout)`. out `(B, (T-1) stride + K - 2 pad, Cout)`.
    ConvTranspose1d {
        /// Up-sampling factor.
        stride: usize,
        /// Samples cut from each side.
        pad: usize,
    },
    /// `x + sin(exp(alpha) x)^2 / (exp(beta) + 1e-9)`. ins: x `(B, T, C)`, alpha `(C)`,
    /// beta `(C)`. May write over x.
    Snake,

    // ----------------------------------------------------------- audio tokens
    /// Finite scalar quantisation, encoding. Per dimension with `L` levels:
    /// `c = 1 + 1/(L-1)`, `z = clamp(c tanh(x/c), -1, 1)`,
    /// `k = floor((L-1)(z+1)/2 + 1/2)`, `code = sum_d k_d prod_{e<d} L_e`.
    /// ins: x `(N, levels.len())`. out i32 `(N)`. Always f32.
    FsqEncode {
        /// Levels per dimension.
        levels: Vec<u32>,
    },
    /// Grid values of codes: `2 k_d / (L_d - 1) - 1`. ins: codes i32 `(N)`.
    /// out `(N, levels.len())`.
    FsqDecode {
        /// Levels per dimension.
        levels: Vec<u32>,
    },

    // ---------------------------------------------------------------- sampling
    /// Adaptive projected guidance (model.md 6.3): per item and channel, norms over time.
    /// `d = c - u`; `avg' = d + momentum * avg`; `d = avg' * min(1, limit / ||avg'||_T)`;
    /// `v = c + (g - 1) * (d - (1 - eta) * <d, c^> c^)`, `c^ = c / max(||c||_T, 1e-12)`;
    /// the projection is summed in f64. ins: c, u, avg `(B, T, C)`.
    /// out `(2, B, T, C)`: slab 0 is v, slab 1 is avg' (before the limit).
    Apg {
        /// Guidance scale g.
        scale: Scalar,
        /// Weight of the running average (upstream: -0.75); 0 disables it.
        momentum: f32,
        /// Largest norm (upstream: 2.5); 0 disables the limit.
        limit: f32,
        /// Share of the parallel part that is kept (upstream: 0).
        eta: f32,
    },
    /// Angle-based dynamic guidance (model.md 6.3), vectors over the channels of one frame.
    /// ins: x (latent), c, u `(B, T, C)`. out v `(B, T, C)`.
    Adg {
        /// Guidance scale.
        scale: Scalar,
        /// Time of the latent.
        t: Scalar,
        /// Whether the angle is clipped to 3.14/6, or 3.14/3 with `renorm` (upstream: yes).
        clip: bool,
        /// Whether the clean sample is rescaled, per item and channel, to the norm over time of
        /// the conditional one (upstream's plain variant: no).
        renorm: bool,
    },
    /// `v * min(1, limit * (||x|| + 1e-10) / (||v|| + 1e-10))`, L2 over `(T, C)` per item.
    /// ins: v, x `(B, T, C)`. May write over v.
    ClampNorm {
        /// Largest ratio of the norms.
        limit: f32,
    },
    /// Wavelet correction (model.md 6.4) along time: pulls x towards y in bands.
    /// ins: x, y `(B, T, C)`. out `(B, T, C)`. Odd T is zero-padded and cropped again.
    Dcw {
        /// Bands, strengths and wavelet.
        dcw: Dcw,
        /// Time before the step.
        t: Scalar,
    },

    // ------------------------------------------------------------------- fused
    /// [`Op::RmsNorm`] then [`Op::Modulate`]. ins: x `(B, T, C)`, w `(C)`, scale `(B, C)`,
    /// shift `(B, C)`.
    RmsNormModulate {
        /// Added to the mean square.
        eps: f32,
    },
    /// [`Op::RmsNorm`] over the head size, then [`Op::Rope`]. ins: x `(B, T, H, D)`, w `(D)`,
    /// cos and sin `(T, D/2)` or `(B, T, D/2)`. May write over x.
    NormRope {
        /// Added to the mean square.
        eps: f32,
    },
    /// `residual + x * gate[b]`. ins: residual `(B, T, C)`, x `(B, T, C)`, gate `(B, C)`.
    /// May write over residual.
    GatedAdd,
    /// `silu(x Wg^T) * (x Wu^T)`. ins: x `(..., K)`, Wg weight `(N, K)`, Wu weight `(N, K)`.
    /// out `(..., N)`.
    SwiGlu,
    /// Snake, then convolution with stride 1: [`Op::Snake`], [`Op::Conv1d`].
    /// ins: x `(B, T, Cin)`, alpha `(Cin)`, beta `(Cin)`, W weight `(Cout, K, Cin)`,
    /// optionally bias `(Cout)`.
    SnakeConv1d {
        /// Distance between taps.
        dilation: usize,
        /// Zeros on each side.
        pad: usize,
    },
    /// Snake, then transposed convolution. ins: x `(B, T, Cin)`, alpha `(Cin)`, beta `(Cin)`,
    /// W weight `(K, Cout, Cin)`, bias `(Cout)`.
    SnakeConvTranspose1d {
        /// Up-sampling factor.
        stride: usize,
        /// Samples cut from each side.
        pad: usize,
    },
}

/// Largest number of inputs of one operation: portable WebGPU grants eight storage bindings.
pub const MAX_INS: usize = 5;

impl Op {
    /// Name as used for kernel files: `snake_case` of the variant.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Reshape => "reshape",
            Op::ConcatChannels => "concat_channels",
            Op::ConcatRows => "concat_rows",
            Op::SliceRows { .. } => "slice_rows",
            Op::PadRows { .. } => "pad_rows",
            Op::SelectRow { .. } => "select_row",
            Op::SelectSlab { .. } => "select_slab",
            Op::PrependRow => "prepend_row",
            Op::RepeatAdd => "repeat_add",
            Op::Embed => "embed",
            Op::WriteRows => "write_rows",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Silu => "silu",
            Op::AddVector => "add_vector",
            Op::MulVector => "mul_vector",
            Op::MulRows => "mul_rows",
            Op::Modulate => "modulate",
            Op::Combine { .. } => "combine",
            Op::SelectByMask => "select_by_mask",
            Op::Linear => "linear",
            Op::RmsNorm { .. } => "rms_norm",
            Op::Rope => "rope",
            Op::Attention { .. } => "attention",
            Op::AttentionWeights { .. } => "attention_weights",
            Op::TimeSinusoid { .. } => "time_sinusoid",
            Op::Conv1d { .. } => "conv1d",
            Op::ConvTranspose1d { .. } => "conv_transpose1d",
            Op::Snake => "snake",
            Op::FsqEncode { .. } => "fsq_encode",
            Op::FsqDecode { .. } => "fsq_decode",
            Op::Apg { .. } => "apg",
            Op::Adg { .. } => "adg",
            Op::ClampNorm { .. } => "clamp_norm",
            Op::Dcw { .. } => "dcw",
            Op::RmsNormModulate { .. } => "rms_norm_modulate",
            Op::NormRope { .. } => "norm_rope",
            Op::GatedAdd => "gated_add",
            Op::SwiGlu => "swiglu",
            Op::SnakeConv1d { .. } => "snake_conv1d",
            Op::SnakeConvTranspose1d { .. } => "snake_conv_transpose1d",
        }
    }

    /// Whether the output may use the memory of the first input.
    pub fn may_overwrite(&self) -> bool {
        matches!(
            self,
            Op::Add
                | Op::Mul
                | Op::Silu
                | Op::AddVector
                | Op::MulVector
                | Op::MulRows
                | Op::Modulate
                | Op::Combine { .. }
                | Op::RmsNorm { .. }
                | Op::Rope
                | Op::Snake
                | Op::ClampNorm { .. }
                | Op::NormRope { .. }
                | Op::GatedAdd
        )
    }

    /// Whether the output is the first input, changed, and not a value of its own.
    pub fn writes_state(&self) -> bool {
        matches!(self, Op::WriteRows)
    }

    /// Inputs that are matrices of weights, which may be of any float dtype.
    pub fn weight_inputs(&self) -> &'static [usize] {
        match self {
            Op::Embed | Op::Linear | Op::Conv1d { .. } | Op::ConvTranspose1d { .. } => &[1],
            Op::SwiGlu => &[1, 2],
            Op::SnakeConv1d { .. } | Op::SnakeConvTranspose1d { .. } => &[3],
            _ => &[],
        }
    }
}
