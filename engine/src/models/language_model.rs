//! The 5 Hz language model: a decoder that keeps the keys and values of everything it has read.
//! One program serves prompts (many tokens at once) and generation (one token per row).

use super::config::LmConfig;
use super::layer::{Cache, Keys, LayerDims, Rope, layer, norm};
use crate::error::Result;
use crate::program::{Builder, DType, Math, Op, Program, Val, WeightDecl, WeightForm};

/// Which rows of the embedding table, the tied output head, give logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Head {
    /// None: the tokens are only read.
    None,
    /// The whole vocabulary.
    Full,
    /// Tokens `start..start + len`, where no others can follow.
    Rows {
        /// First token.
        start: usize,
        /// Number of tokens.
        len: usize,
    },
}

impl Head {
    /// Number of logits per row of a vocabulary of `vocabulary` tokens.
    pub fn len(self, vocabulary: usize) -> usize {
        match self {
            Head::None => 0,
            Head::Full => vocabulary,
            Head::Rows { len, .. } => len,
        }
    }

    /// Token of the first logit.
    pub fn start(self) -> usize {
        match self {
            Head::Rows { start, .. } => start,
            _ => 0,
        }
    }
}

/// Sizes of one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LmShape {
    /// Rows `B` of the batch.
    pub rows: usize,
    /// New tokens `T` per row.
    pub tokens: usize,
    /// Positions `S` that a row of the cache has.
    pub capacity: usize,
    /// Which logits are wanted.
    pub head: Head,
}

const TABLE: &str = "embed_tokens.weight";

fn dims(c: &LmConfig) -> LayerDims {
    LayerDims {
        hidden: c.hidden_size,
        intermediate: c.intermediate_size,
        heads: c.num_attention_heads,
        kv_heads: c.num_key_value_heads,
        head_dim: c.head_dim,
        eps: c.rms_norm_eps,
    }
}

/// Names of the states of layer `i`: keys and values.
pub fn cache_names(i: usize) -> [String; 2] {
    [format!("k.{i}"), format!("v.{i}")]
}

/// Shape of each state: `(rows, capacity, G, D)`.
pub fn cache_shape(c: &LmConfig, rows: usize, capacity: usize) -> [usize; 4] {
    [rows, capacity, c.num_key_value_heads, c.head_dim]
}

/// How keys and values are kept: rounded to bf16 where products round their operands anyway.
pub fn cache_dtype(math: Math) -> DType {
    match math {
        Math::F32 => DType::F32,
        Math::Bf16 => DType::BF16,
    }
}

/// Bytes of the keys and values of one position of one row.
pub fn cache_bytes(c: &LmConfig, math: Math) -> usize {
    2 * cache_dtype(math).bytes() * c.num_hidden_layers * c.num_key_value_heads * c.head_dim
}

/// Reads `T` tokens per row behind what its cache holds.
///
/// Inputs `ids` i32 `(B, T)`, `positions` i32 `(B, T)` (each in `0..S`), `at` i32 `(B)` (position
/// of a row's first new token) and `lengths` i32 `(B)` (`at + T`); states `k.{i}` and `v.{i}`
/// `(B, S, G, D)` of [`cache_dtype`]. Output `logits` `(B, rows of the head)` of the last token of each row; without
/// a head `hidden` `(B, C)`, its normed state.
pub fn forward(c: &LmConfig, math: Math, shape: LmShape) -> Result<Program> {
    let LmShape {
        rows,
        tokens,
        capacity,
        head,
    } = shape;
    let mut b = Builder::new("language_model", math);
    let ids = b.input_i32("ids", &[rows, tokens]);
    let positions = b.input_i32("positions", &[rows, tokens]);
    let at = b.input_i32("at", &[rows]);
    let lengths = b.input_i32("lengths", &[rows]);
    let table = b.matrix(TABLE, &[c.vocab_size, c.hidden_size]);
    let mut x = b.embed(ids, table);
    b.tap("embed", x);
    let rope = Rope::at(&mut b, positions, capacity, c.head_dim, c.rope_theta);
    for i in 0..c.num_hidden_layers {
        let [k, v] =
            cache_names(i).map(|n| b.state(n, &cache_shape(c, rows, capacity), cache_dtype(math)));
        let cache = Cache { k, v, at, lengths };
        let (prefix, tap) = (format!("layers.{i}"), format!("layer{i}"));
        let keys = Keys::Cached(cache);
        x = layer(&mut b, &prefix, &tap, x, &dims(c), keys, rope);
    }
    let last = last_rows(&mut b, x);
    let last = norm(&mut b, "norm", last, c.rms_norm_eps);
    match head_weight(&mut b, c, head) {
        Some(w) => {
            let logits = b.linear(last, w);
            b.output("logits", logits);
        }
        None => b.output("hidden", last),
    }
    b.finish()
}

/// The last of the `T` rows of each item: `(B, T, C)` to `(B, C)`.
fn last_rows(b: &mut Builder, x: Val) -> Val {
    let &[rows, tokens, c] = b.shape(x) else {
        return x;
    };
    let last = match tokens {
        1 => x,
        _ => {
            let start = tokens - 1;
            b.op(Op::SliceRows { start, len: 1 }, &[x])
        }
    };
    b.reshape(last, &[rows, c])
}

fn head_weight(b: &mut Builder, c: &LmConfig, head: Head) -> Option<Val> {
    let stored = [c.vocab_size, c.hidden_size];
    match head {
        Head::None => None,
        Head::Full => Some(b.matrix(TABLE, &stored)),
        Head::Rows { start, len } => Some(b.weight_decl(WeightDecl {
            name: TABLE.into(),
            stored: stored.to_vec(),
            shape: vec![len, c.hidden_size],
            form: WeightForm::Rows { start, len },
            widen: false,
        })),
    }
}

/// Copies the first `tokens` positions of one row's cache to another row.
///
/// Inputs `at` i32 `(1)` (always 0), `from.k.{i}` and `from.v.{i}` `(1, tokens, G, D)`; states
/// `k.{i}` and `v.{i}` `(1, capacity, G, D)`.
pub fn copy_prefix(c: &LmConfig, math: Math, tokens: usize, capacity: usize) -> Result<Program> {
    let mut b = Builder::new("copy_prefix", math);
    let dtype = cache_dtype(math);
    let at = b.input_i32("at", &[1]);
    for i in 0..c.num_hidden_layers {
        for name in cache_names(i) {
            let from = b.input_of(format!("from.{name}"), &cache_shape(c, 1, tokens), dtype);
            let to = b.state(name.as_str(), &cache_shape(c, 1, capacity), dtype);
            b.write_rows(to, from, at);
        }
    }
    b.finish()
}
