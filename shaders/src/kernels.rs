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
    /// The binding of stored weights, which is only read.
    pub weights: Option<usize>,
}

const COMMON: &str = include_str!("../wgsl/common.wgsl");
const FRAME: &str = include_str!("../wgsl/elementwise.wgsl");
const PRODUCT: &str = include_str!("../wgsl/product.wgsl");

macro_rules! elementwise {
    ($($id:ident $name:literal),* $(,)?) => {
        $(
            #[doc = concat!("`", $name, "`, element by element.")]
            pub static $id: Shader = Shader {
                name: $name,
                text: &[FRAME, include_str!(concat!("../wgsl/elementwise/", $name, ".wgsl"))],
                bindings: 5,
                weights: None,
            };
        )*
    };
}

elementwise! {
    ADD "add", MUL "mul", SILU "silu", ADD_VECTOR "add_vector", MUL_VECTOR "mul_vector",
    MUL_ROWS "mul_rows", MODULATE "modulate", COMBINE "combine", SELECT_BY_MASK "select_by_mask",
    GATED_ADD "gated_add", SNAKE "snake", REPEAT_ADD "repeat_add", TIME_SINUSOID "time_sinusoid",
}

macro_rules! shaders {
    ($($id:ident $name:literal $bindings:literal $weights:expr),* $(,)?) => {
        $(
            #[doc = concat!("`", $name, ".wgsl`.")]
            pub static $id: Shader = Shader {
                name: $name,
                text: &[include_str!(concat!("../wgsl/", $name, ".wgsl"))],
                bindings: $bindings,
                weights: $weights,
            };
        )*
    };
}

shaders! {
    COPY "copy" 3 None,
    EMBED "embed" 3 Some(1),
    WRITE_ROWS "write_rows" 3 None,
    FSQ_ENCODE "fsq_encode" 2 None,
    FSQ_DECODE "fsq_decode" 2 None,
    RMS_NORM "rms_norm" 5 None,
    ROPE "rope" 5 None,
    ATTENTION "attention" 5 None,
    ATTENTION_WEIGHTS "attention_weights" 4 None,
    APG "apg" 5 None,
    ADG "adg" 5 None,
    ADG_RENORM "adg_renorm" 4 None,
    CLAMP_NORM "clamp_norm" 3 None,
    DCW "dcw" 5 None,
}

/// Products of many rows.
pub static PRODUCT_TILED: Shader = Shader {
    name: "product_tiled",
    text: &[PRODUCT, include_str!("../wgsl/product_tiled.wgsl")],
    bindings: 5,
    weights: Some(1),
};

/// Products of few rows.
pub static PRODUCT_FEW: Shader = Shader {
    name: "product_few",
    text: &[PRODUCT, include_str!("../wgsl/product_few.wgsl")],
    bindings: 5,
    weights: Some(1),
};

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
    /// `const` lines, in the order of the launcher.
    head: String,
    /// How weights are stored.
    dtype: DType,
}

impl Variant {
    /// `shader` without constants.
    pub fn new(shader: &'static Shader) -> Self {
        Variant {
            shader,
            head: String::new(),
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
            (None, _) => "",
            (_, DType::BF16) => include_str!("../wgsl/weights/bf16.wgsl"),
            (_, DType::F16) => include_str!("../wgsl/weights/f16.wgsl"),
            (_, DType::F32 | DType::I32) => include_str!("../wgsl/weights/f32.wgsl"),
        };
        let parts = [self.head.as_str(), COMMON, reader];
        parts
            .into_iter()
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
