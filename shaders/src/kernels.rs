//! The table of shaders, and pipelines made of them when they are first needed.
//!
//! A shader's text is `const` lines, the common functions, perhaps a reader of weights, and its
//! own file. All choices are constants, so that a compiler sees only what runs.

use crate::gpu::{BINDINGS, Gpu, PARAMETER_BYTES};
use engine::program::DType;
use engine::{Error, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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

/// Number of bindings, and the one that is only read.
type LayoutKey = (usize, Option<usize>);

/// Compiled shaders of a device.
pub struct Pipelines {
    gpu: Arc<Gpu>,
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    made: Mutex<HashMap<String, Arc<Pipeline>>>,
}

/// What a pipeline is bound to.
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A compiled shader.
pub struct Pipeline {
    /// What runs.
    pub compute: wgpu::ComputePipeline,
    /// What it wants bound.
    pub group: wgpu::BindGroupLayout,
}

impl Pipelines {
    /// None yet.
    pub fn new(gpu: Arc<Gpu>) -> Self {
        Pipelines {
            gpu,
            layouts: Mutex::default(),
            made: Mutex::default(),
        }
    }

    /// The pipeline of `variant`, compiled on first use.
    pub fn get(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        let key = format!(
            "{} {:?}\n{}",
            variant.shader.name, variant.dtype, variant.head
        );
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = made.get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(self.compile(variant)?);
        made.insert(key, pipeline.clone());
        Ok(pipeline)
    }

    fn compile(&self, variant: &Variant) -> Result<Pipeline> {
        let device = &self.gpu.device;
        let layout = self.layout(variant.shader);
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(variant.shader.name),
            source: wgpu::ShaderSource::Wgsl(Cow::Owned(variant.text())),
        };
        // SAFETY: shapes are checked when a program is built, launchers derive every index from
        // them, and each shader tests its thread against the sizes in its parameters; loops are
        // bounded by these sizes. Values read from memory (ids, positions, lengths) are clamped.
        let module = unsafe {
            device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        };
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.shader.name),
            layout: Some(&layout.pipeline),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        if let Some(e) = pollster::block_on(scope.pop()) {
            return Err(Error::Bug(format!(
                "shader {} does not compile on {}: {e}",
                variant.shader.name, self.gpu.name
            )));
        }
        self.gpu.check()?;
        Ok(Pipeline {
            compute,
            group: layout.group.clone(),
        })
    }

    fn layout(&self, shader: &Shader) -> Arc<Layout> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shader.bindings, shader.weights);
        let make = || Arc::new(self.make_layout(shader));
        layouts.entry(key).or_insert_with(make).clone()
    }

    fn make_layout(&self, shader: &Shader) -> Layout {
        debug_assert!(shader.bindings as u32 <= BINDINGS);
        let entries: Vec<_> = (0..shader.bindings)
            .map(|i| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage {
                        read_only: shader.weights == Some(i),
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let group = self
            .gpu
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
        let pipeline = self
            .gpu
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: PARAMETER_BYTES,
            });
        Layout { group, pipeline }
    }
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
