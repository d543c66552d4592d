//! Replacing what a backend has no kernel for by its definition.

use super::build::{Builder, Program, Val};
use super::define::define;
use super::op::Op;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// The program with every operation that `claims` refuses replaced by its definition, and the
/// names of the operations that were replaced. A refused primitive is a fault of the backend.
pub fn lower(
    program: &Program,
    claims: &dyn Fn(&Op) -> bool,
) -> Result<(Program, BTreeSet<&'static str>)> {
    let mut by_definition = BTreeSet::new();
    if program.steps.iter().all(|s| claims(&s.op)) {
        return Ok((program.clone(), by_definition));
    }
    let mut b = Builder::new(program.name.clone(), program.math);
    let mut map: HashMap<Val, Val> = HashMap::new();
    let mut steps = program.steps.iter().peekable();
    for (i, info) in program.vals.iter().enumerate() {
        let old = Val(i as u32);
        // Values are numbered in the order they were written, so a step's inputs are known.
        let new = match steps.peek() {
            Some(step) if step.out == old => {
                let ins: Vec<Val> = step.ins.iter().map(|v| map[v]).collect();
                let out = append(&mut b, &step.op, &ins, claims, &mut by_definition)?;
                steps.next();
                out
            }
            _ => b.adopt(info, |v| map[&v]),
        };
        map.insert(old, new);
    }
    for (name, v) in &program.outs {
        b.output(name.clone(), map[v]);
    }
    for (name, v) in &program.taps {
        b.tap(name.clone(), map[v]);
    }
    Ok((b.finish()?, by_definition))
}

fn append(
    b: &mut Builder,
    op: &Op,
    ins: &[Val],
    claims: &dyn Fn(&Op) -> bool,
    by_definition: &mut BTreeSet<&'static str>,
) -> Result<Val> {
    if claims(op) {
        return Ok(b.op(op.clone(), ins));
    }
    by_definition.insert(op.name());
    define(b, op, ins)
        .ok_or_else(|| Error::Bug(format!("the backend has no kernel for {}", op.name())))
}

impl Builder {
    /// Takes over a value that is not computed by a step.
    fn adopt(&mut self, info: &super::ValInfo, map: impl Fn(Val) -> Val) -> Val {
        use super::ValKind;
        match &info.kind {
            ValKind::Alias(of) => self.reshape(map(*of), &info.shape),
            kind => self.place(info.shape.clone(), info.dtype, kind.clone()),
        }
    }
}
