//! The table of shaders.
//!
//! A shader's text is `const` lines, the common functions, perhaps a reader of weights, and its
//! own file. All choices are constants, so that a compiler sees only what runs.

use engine::program::DType;

/// A shader file.
#[derive(Debug, PartialEq, Eq)]
pub struct Shader {
    /// Name of the file.
    pub name: &'static str,
    text: &'static [&'static str],
    /// Number of storage bindings.
    pub bindings: usize,
    /// The bindings of stored weights, which are only read.
    pub weights: &'static [usize],
}

/// Text that completes a shader in one of several ways.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece {
    name: &'static str,
    text: &'static str,
}

const COMMON: &str = include_str!("../wgsl/common.wgsl");
const FRAME: &str = include_str!("../wgsl/elementwise.wgsl");
const PRODUCT: &str = include_str!("../wgsl/product.wgsl");
const HEADS_OF_128: &str = include_str!("../wgsl/attention/frame.wgsl");
const RMS_NORM_PARAMS: &str = include_str!("../wgsl/params/rms_norm.wgsl");
const ROPE_PARAMS: &str = include_str!("../wgsl/params/rope.wgsl");
const ATTENTION_PARAMS: &str = include_str!("../wgsl/params/attention.wgsl");

macro_rules! elementwise {
    ($($id:ident $name:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $name, "`, element by element.")]
            pub static $id: Shader = Shader {
                name: $name,
                text: &[FRAME, include_str!(concat!("../wgsl/elementwise/", $name, ".wgsl"))],
                bindings: 5,
                weights: &[],
            };
        )*
    };
}

elementwise! {
    ADD "add", MUL "mul", SILU "silu", ADD_VECTOR "add_vector", MUL_VECTOR "mul_vector",
    MUL_ROWS "mul_rows", MODULATE "modulate", COMBINE "combine", SELECT_BY_MASK "select_by_mask",
    GATED_ADD "gated_add", SNAKE "snake", REPEAT_ADD "repeat_add", TIME_SINUSOID "time_sinusoid",
}

// Name of the constant, file, what comes before its text, bindings, those of weights.
macro_rules! shaders {
    ($($id:ident $name:literal $(behind $first:ident)* $bindings:literal $weights:expr),* $(,)?) => {
        $(
            #[doc = concat!("`", $name, ".wgsl`.")]
            pub static $id: Shader = Shader {
                name: $name,
                text: &[$($first,)* include_str!(concat!("../wgsl/", $name, ".wgsl"))],
                bindings: $bindings,
                weights: $weights,
            };
        )*
    };
}

shaders! {
    PRODUCT_TILED "product_tiled" behind PRODUCT 5 &[1],
    PAIR_TILED "product_tiled" behind PRODUCT 5 &[1, 2],
    PRODUCT_DIRECT "product_direct" behind PRODUCT 5 &[1],
    PAIR_DIRECT "product_direct" behind PRODUCT 5 &[1, 2],
    PRODUCT_LANES "product_lanes" behind PRODUCT 5 &[1],
    PAIR_LANES "product_lanes" behind PRODUCT 5 &[1, 2],
    PRODUCT_FEW "product_few" behind PRODUCT 5 &[1],
    PAIR_FEW "product_few" behind PRODUCT 5 &[1, 2],
    PRODUCT_NARROW "product_narrow" behind PRODUCT 5 &[1],
    PRODUCT_SUM "product_sum" 3 &[],
    COPY "copy" 3 &[],
    EMBED "embed" 3 &[1],
    WRITE_ROWS "write_rows" 3 &[],
    FSQ_ENCODE "fsq_encode" 2 &[],
    FSQ_DECODE "fsq_decode" 2 &[],
    RMS_NORM "rms_norm" behind RMS_NORM_PARAMS 5 &[],
    ROPE "rope" behind ROPE_PARAMS 5 &[],
    RMS_NORM_QUADS "rms_norm_quads" behind RMS_NORM_PARAMS 5 &[],
    ROPE_HEADS "rope_heads" behind ROPE_PARAMS 5 &[],
    ATTENTION "attention" behind ATTENTION_PARAMS 5 &[],
    ATTENTION_WEIGHTS "attention_weights" 4 &[],
    ATTENTION_TILED "attention_tiled" behind ATTENTION_PARAMS behind HEADS_OF_128 5 &[],
    ATTENTION_FEW "attention_few" behind ATTENTION_PARAMS behind HEADS_OF_128 5 &[],
    ATTENTION_MERGE "attention_merge" 3 &[],
    APG "apg" 5 &[],
    ADG "adg" 5 &[],
    ADG_RENORM "adg_renorm" 4 &[],
    CLAMP_NORM "clamp_norm" 3 &[],
    DCW "dcw" 5 &[],
}

macro_rules! pieces {
    ($($id:ident $name:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $name, ".wgsl`.")]
            pub static $id: Piece = Piece {
                name: $name,
                text: include_str!(concat!("../wgsl/", $name, ".wgsl")),
            };
        )*
    };
}

pieces! {
    QUADS "product/quads", WORDS "product/words", PIECES "product/pieces",
    PIECES_OF_WORDS "product/pieces_of_words", SINGLE "product/single", PAIR "product/pair",
    OUT_QUADS "product/out_quads", OUT_WORDS "product/out_words",
    KEYS_F32 "attention/keys_f32", KEYS_BF16 "attention/keys_bf16",
    EIGHTS_IN_MEMORY "eights/memory", EIGHTS_BY_SUBGROUP "eights/subgroup",
    SUMS_IN_MEMORY "sums/memory", SUMS_BY_SUBGROUP "sums/subgroup",
}

/// A value that a shader is compiled with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Const {
    /// A switch.
    Bool(bool),
    /// A size.
    U32(u32),
    /// A factor.
    F32(f32),
}

/// A shader with its constants.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The file.
    pub shader: &'static Shader,
    /// `const` lines, in the order of the launcher, and the names of the pieces.
    head: String,
    pieces: Vec<&'static Piece>,
    /// How weights are stored.
    dtype: DType,
}

impl Variant {
    /// `shader` without constants.
    pub fn new(shader: &'static Shader) -> Self {
        Variant {
            shader,
            head: String::new(),
            pieces: Vec::new(),
            dtype: DType::F32,
        }
    }

    /// With a constant.
    pub fn with(mut self, name: &str, value: Const) -> Self {
        self.head += &match value {
            Const::Bool(v) => format!("const {name}: bool = {v};\n"),
            Const::U32(v) => format!("const {name}: u32 = {v}u;\n"),
            Const::F32(v) => format!("const {name}: f32 = {v:?}f;\n"),
        };
        self
    }

    /// With an array of u32.
    pub fn with_u32s(mut self, name: &str, values: &[u32]) -> Self {
        let list: Vec<String> = values.iter().map(|v| format!("{v}u")).collect();
        let (n, list) = (values.len(), list.join(", "));
        self.head += &format!("const {name} = array<u32, {n}>({list});\n");
        self
    }

    /// With an array of f32.
    pub fn with_f32s(mut self, name: &str, values: &[f32]) -> Self {
        let list: Vec<String> = values.iter().map(|v| format!("{v:?}f")).collect();
        let (n, list) = (values.len(), list.join(", "));
        self.head += &format!("const {name} = array<f32, {n}>({list});\n");
        self
    }

    /// Completed by a piece.
    pub fn including(mut self, piece: &'static Piece) -> Self {
        self.head += &format!("// with {}\n", piece.name);
        self.pieces.push(piece);
        self
    }

    /// With weights stored as `dtype`.
    pub fn stored(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// What tells it from all other variants.
    pub fn key(&self) -> String {
        format!("{} {:?}\n{}", self.shader.name, self.dtype, self.head)
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let reader = match (self.shader.weights, self.dtype) {
            ([], _) => "",
            (_, DType::BF16) => include_str!("../wgsl/weights/bf16.wgsl"),
            (_, DType::F16) => include_str!("../wgsl/weights/f16.wgsl"),
            (_, DType::F32 | DType::I32) => include_str!("../wgsl/weights/f32.wgsl"),
        };
        let parts = [self.head.as_str(), COMMON, reader];
        parts
            .into_iter()
            .chain(self.pieces.iter().map(|piece| piece.text))
            .chain(self.shader.text.iter().copied())
            .collect()
    }
}

/// A shader as it is given to a driver.
pub struct ShaderText {
    /// File and constants.
    pub name: String,
    /// WGSL.
    pub text: String,
}

/// Every shader in every kind of variant that launchers make, for checks of their texts.
pub fn variants() -> Vec<ShaderText> {
    crate::launch::all_variants()
        .into_iter()
        .map(|v| ShaderText {
            name: format!(
                "{} {:?} {}",
                v.shader.name,
                v.dtype,
                v.head.replace('\n', " ")
            ),
            text: v.text(),
        })
        .collect()
}
