//! Programs as text: one line per step, for faults and traces.

use super::build::{Program, Val, ValKind};
use std::fmt;

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {} ({:?} products)", self.name, self.math)?;
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{i:5} {:22}", step.op.name())?;
            for v in &step.ins {
                write!(f, " {}", self.describe(*v))?;
            }
            writeln!(f, " -> {}", self.describe(step.out))?;
        }
        Ok(())
    }
}

impl Program {
    fn describe(&self, v: Val) -> String {
        let info = &self.vals[v.index()];
        match &info.kind {
            ValKind::Input(name) => format!("{name}{:?}", info.shape),
            ValKind::Weight(decl) => format!("{}{:?}", decl.name, info.shape),
            ValKind::Const(_) => format!("const{:?}", info.shape),
            ValKind::Temp => format!("%{}{:?}", v.0, info.shape),
            ValKind::State(name) => format!("state {name}{:?}", info.shape),
            ValKind::Alias(of) => match &self.vals[self.root(*of).index()].kind {
                ValKind::State(name) => format!("state {name}{:?}", info.shape),
                _ => format!("%{}{:?}", self.root(*of).0, info.shape),
            },
        }
    }
}
