//! One case on one backend.

use crate::cases::{Case, Value};
use engine::backend::{Backend, HostBytes, NoWeights, Ready, Region, Weights, prepare};
use engine::error::{Error, Result};
use engine::program::{Builder, DType, Math, Program, Val, WeightDecl, WeightForm, lower};
use std::sync::Arc;

/// Stands beside an output; a kernel that writes too much destroys it.
const SENTINEL: f32 = -1234.5;

/// How a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// From bound inputs to a bound output.
    Plain,
    /// From and to temporaries, so that the planner may lay the output over the input.
    InPlace,
    /// Every operation that has a definition replaced by it.
    Defined,
}

/// Weights that are given as values.
pub struct Given(Vec<(String, Region)>);

impl Given {
    /// Uploads the weight inputs of a case.
    pub fn new(backend: &dyn Backend, case: &Case, values: &[Value]) -> Result<Self> {
        let weights = case.op.weight_inputs();
        let regions = weights.iter().map(|&i| {
            let host = stored(&values[i]);
            let bytes = host.len();
            let row_bytes = bytes / values[i].shape[0].max(1);
            let host = HostBytes::new(Arc::new(host), 0..bytes)
                .ok_or_else(|| Error::Bug("a weight is longer than its bytes".into()))?;
            let region = Region::whole(
                backend.adopt(host, row_bytes)?,
                &values[i].shape,
                values[i].dtype,
            );
            Ok((weight_name(i), region))
        });
        Ok(Given(regions.collect::<Result<_>>()?))
    }
}

impl Weights for Given {
    fn region(&self, backend: &dyn Backend, decl: &WeightDecl, math: Math) -> Result<Region> {
        match self.0.iter().find(|(name, _)| *name == decl.name) {
            Some((_, region)) => Ok(region.clone()),
            None => NoWeights.region(backend, decl, math),
        }
    }
}

fn weight_name(i: usize) -> String {
    format!("weight{i}")
}

fn input_name(i: usize) -> String {
    format!("input{i}")
}

/// The bytes of a file that holds the value.
fn stored(value: &Value) -> Vec<u8> {
    let halves = |bits: fn(f32) -> u16| {
        value
            .data
            .iter()
            .flat_map(|&x| bits(x).to_le_bytes())
            .collect()
    };
    match value.dtype {
        DType::F32 => value.data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::I32 => value
            .data
            .iter()
            .flat_map(|&x| (x as i32).to_le_bytes())
            .collect(),
        DType::BF16 => halves(|x| half::bf16::from_f32(x).to_bits()),
        DType::F16 => halves(|x| half::f16::from_f32(x).to_bits()),
    }
}

/// The program of a case: inputs `input0..`, weights `weight0..`, output `out`.
pub fn program(case: &Case, form: Form) -> Result<Program> {
    let mut b = Builder::new(case.name.clone(), case.math);
    let mut ins: Vec<Val> = Vec::new();
    for (i, input) in case.ins.iter().enumerate() {
        let weight = case.op.weight_inputs().contains(&i);
        ins.push(match case.stored_as(i) {
            _ if weight => b.weight_decl(WeightDecl {
                name: weight_name(i),
                stored: input.shape.clone(),
                shape: input.shape.clone(),
                form: WeightForm::Stored,
                widen: false,
            }),
            DType::I32 => b.input_i32(input_name(i), &input.shape),
            dtype if i == 0 && case.op.writes_state() => {
                b.state(input_name(i), &input.shape, dtype)
            }
            dtype => b.input_of(input_name(i), &input.shape, dtype),
        });
    }
    // A state is always changed in place.
    let out = if form == Form::InPlace && !case.op.writes_state() {
        ins[0] = plus_zero(&mut b, ins[0]);
        let out = b.op(case.op.clone(), &ins);
        plus_zero(&mut b, out)
    } else {
        b.op(case.op.clone(), &ins)
    };
    b.output("out", out);
    let program = b.finish()?;
    if form == Form::Defined {
        let defined = |op: &engine::program::Op| !FUSED.contains(&op.name());
        return Ok(lower(&program, &defined)?.0);
    }
    Ok(program)
}

/// Operations that have a definition.
pub const FUSED: [&str; 6] = [
    "rms_norm_modulate",
    "norm_rope",
    "gated_add",
    "swiglu",
    "snake_conv1d",
    "snake_conv_transpose1d",
];

/// A temporary with the same elements.
fn plus_zero(b: &mut Builder, x: Val) -> Val {
    let shape = b.shape(x).to_vec();
    let zero = b.constant(&shape, vec![0.0; shape.iter().product()]);
    b.add(x, zero)
}

/// A case ready to run, and where its result will lie.
pub struct Prepared {
    /// Run it with the case's scalars.
    pub ready: Box<dyn Ready>,
    out: Region,
    around: Region,
}

impl Prepared {
    /// Prepares `case` on `backend`, the output between two blocks of sentinels.
    pub fn new(backend: &dyn Backend, case: &Case, form: Form) -> Result<Self> {
        let program = program(case, form)?;
        let values = case.values();
        let weights = Given::new(backend, case, &values)?;
        let mut inputs: Vec<(String, Region)> = Vec::new();
        for (i, value) in values.iter().enumerate() {
            if case.op.weight_inputs().contains(&i) {
                continue;
            }
            let region = match value.dtype {
                DType::I32 => {
                    let data: Vec<i32> = value.data.iter().map(|&x| x as i32).collect();
                    Region::from_i32(backend, &value.shape, &data)?
                }
                dtype => {
                    let region = Region::zeros(backend, &value.shape, dtype)?;
                    region.write_f32(backend, &value.data)?;
                    region
                }
            };
            inputs.push((input_name(i), region));
        }
        let out = &program.vals[program.outs[0].1.index()];
        let len = out.len();
        // A sentinel is one or two elements.
        let words = (3 * out.bytes()).div_ceil(4);
        let around = Region::from_f32(backend, &[words], &vec![SENTINEL; words])?;
        let around = Region::whole(around.buffer().clone(), &[3, len], out.dtype);
        let region = around.slab(1).reshaped(&out.shape);
        let inputs: Vec<(&str, &Region)> = inputs.iter().map(|(n, r)| (n.as_str(), r)).collect();
        let ready = prepare(backend, &program, &weights, &inputs, &[("out", &region)])?;
        Ok(Prepared {
            ready,
            out: region,
            around,
        })
    }

    /// Where the result lies.
    pub fn region(&self) -> &Region {
        &self.out
    }

    /// The result; an error when something beside it was written.
    pub fn result(&self, backend: &dyn Backend) -> Result<Vec<f64>> {
        let bytes = self.out.bytes();
        let mut all = vec![0u8; (3 * bytes).next_multiple_of(4)];
        backend.read(self.around.buffer(), 0, &mut all)?;
        let sentinel = SENTINEL.to_le_bytes();
        let intact = |at: usize| all[at] == sentinel[at % 4];
        if !(0..bytes).chain(2 * bytes..all.len()).all(intact) {
            return Err(Error::Bug("the kernel wrote outside its output".into()));
        }
        Ok(match self.out.dtype() {
            DType::I32 => self
                .out
                .read_i32(backend)?
                .iter()
                .map(|x| f64::from(*x))
                .collect(),
            _ => self
                .out
                .read_f32(backend)?
                .iter()
                .map(|x| f64::from(*x))
                .collect(),
        })
    }
}

/// Runs `case` once.
pub fn run(backend: &dyn Backend, case: &Case, form: Form) -> Result<Vec<f64>> {
    let mut prepared = Prepared::new(backend, case, form)?;
    prepared.ready.run(&case.scalars)?;
    prepared.result(backend)
}
