//! Running a program once, host memory in, host memory out: for encoders and comparisons, not
//! for loops.

use super::{Backend, Region, Weights, prepare};
use crate::error::{Error, Result};
use crate::program::{DType, Program, ValKind};

/// Elements given to an input.
#[derive(Debug, Clone, Copy)]
pub enum HostData<'a> {
    /// f32 elements; rounded for an input of bf16.
    F32(&'a [f32]),
    /// i32 elements.
    I32(&'a [i32]),
}

/// Elements read from an output.
#[derive(Debug, Clone, PartialEq)]
pub enum HostVec {
    /// f32 elements.
    F32(Vec<f32>),
    /// i32 elements.
    I32(Vec<i32>),
}

/// Everything a program computed, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs(Vec<(String, Vec<usize>, HostVec)>);

impl Outputs {
    /// Names, shapes and elements, in the program's order.
    pub fn iter(&self) -> impl Iterator<Item = &(String, Vec<usize>, HostVec)> {
        self.0.iter()
    }

    /// Takes an f32 output.
    pub fn take_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        match self.take(name)? {
            HostVec::F32(v) => Ok(v),
            HostVec::I32(_) => Err(Error::Bug(format!("output {name} is not f32"))),
        }
    }

    /// Takes an i32 output.
    pub fn take_i32(&mut self, name: &str) -> Result<Vec<i32>> {
        match self.take(name)? {
            HostVec::I32(v) => Ok(v),
            HostVec::F32(_) => Err(Error::Bug(format!("output {name} is not i32"))),
        }
    }

    fn take(&mut self, name: &str) -> Result<HostVec> {
        match self.0.iter().position(|(n, _, _)| n == name) {
            Some(i) => Ok(self.0.swap_remove(i).2),
            None => Err(Error::Bug(format!("the program has no output {name}"))),
        }
    }
}

/// The dtype of a float input or state; f32 where the program has none of that name.
fn dtype(program: &Program, name: &str) -> DType {
    let named = |kind: &ValKind| matches!(kind, ValKind::Input(n) | ValKind::State(n) if n == name);
    let info = program.vals.iter().find(|info| named(&info.kind));
    info.map_or(DType::F32, |info| info.dtype)
}

/// Uploads `inputs`, runs `program` with `scalars`, returns every output.
pub fn run_once(
    backend: &dyn Backend,
    program: &Program,
    weights: &dyn Weights,
    inputs: &[(&str, HostData)],
    scalars: &[f32],
) -> Result<Outputs> {
    let mut regions = Vec::with_capacity(inputs.len());
    for (name, data) in inputs {
        regions.push((
            *name,
            match data {
                HostData::F32(d) => {
                    let region = Region::zeros(backend, &[d.len()], dtype(program, name))?;
                    region.write_f32(backend, d)?;
                    region
                }
                HostData::I32(d) => Region::from_i32(backend, &[d.len()], d)?,
            },
        ));
    }
    let mut outputs = Vec::with_capacity(program.outs.len());
    for (name, v) in &program.outs {
        let info = &program.vals[v.index()];
        outputs.push((
            name.as_str(),
            Region::zeros(backend, &info.shape, info.dtype)?,
        ));
    }
    let ins: Vec<(&str, &Region)> = regions.iter().map(|(n, r)| (*n, r)).collect();
    let outs: Vec<(&str, &Region)> = outputs.iter().map(|(n, r)| (*n, r)).collect();
    prepare(backend, program, weights, &ins, &outs)?.run(scalars)?;
    let mut read = Vec::with_capacity(outputs.len());
    for (name, region) in &outputs {
        let data = match region.dtype() {
            DType::I32 => HostVec::I32(region.read_i32(backend)?),
            _ => HostVec::F32(region.read_f32(backend)?),
        };
        read.push((name.to_string(), region.shape().to_vec(), data));
    }
    Ok(Outputs(read))
}
