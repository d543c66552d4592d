//! The memory planner: random programs give the same bits from the planned arena as with every
//! value in a region of its own, and no two values that live at once share a byte.

use engine::backend::cpu::CpuBackend;
use engine::backend::{NoWeights, Region, prepare};
use engine::program::{Builder, DType, Math, Op, Program, Scalar, Val, ValKind, plan};
use proptest::prelude::*;
use std::ops::Range;
use tests::random::Random;

/// One instruction: which operation, and which of the values that fit it.
type Instruction = (u8, u16, u16, u16);

const B: usize = 2;
const C: usize = 6;

/// A program over values `(B, T, C)`: instructions are interpreted so that every one is valid.
fn write(instructions: &[Instruction], outputs: usize) -> Program {
    let mut b = Builder::new("random", Math::F32);
    let mut vals: Vec<Val> = [3, 5]
        .map(|t| b.input(format!("in{t}"), &[B, t, C]))
        .into_iter()
        .collect();
    let v = b.constant(&[C], (0..C).map(|i| 0.5 + 0.1 * i as f32).collect());
    let rows = b.constant(&[B, C], (0..B * C).map(|i| 0.1 * i as f32 - 0.5).collect());
    for &(op, x, y, z) in instructions {
        let x = vals[x as usize % vals.len()];
        let shape = b.shape(x).to_vec();
        let t = shape[1];
        let fits: Vec<Val> = vals
            .iter()
            .copied()
            .filter(|v| b.shape(*v) == shape)
            .collect();
        let y = fits[y as usize % fits.len()];
        let z_fit = fits[z as usize % fits.len()];
        let out = match op % 12 {
            0 => b.add(x, y),
            1 => b.op(Op::Mul, &[x, y]),
            2 => b.silu(x),
            3 => b.op(Op::AddVector, &[x, v]),
            4 => b.op(Op::Modulate, &[x, rows, rows]),
            5 => b.op(Op::RmsNormModulate { eps: 1e-6 }, &[x, v, rows, rows]),
            6 => b.combine(Scalar(0), x, Scalar(1), y),
            7 if t <= 40 => b.op(Op::ConcatRows, &[x, y, z_fit]),
            8 => {
                let start = z as usize % t;
                b.op(
                    Op::SliceRows {
                        start,
                        len: t - start,
                    },
                    &[x],
                )
            }
            9 => {
                // A view of x that an operation may write over.
                let flat = b.reshape(x, &[B * t, C]);
                let flat = b.silu(flat);
                b.reshape(flat, &[B, t, C])
            }
            10 => {
                let heads = b.reshape(x, &[B, t, 1, C]);
                let others = b.reshape(y, &[B, t, 1, C]);
                let o = b.attention(heads, others, others, engine::program::Mask::Full);
                b.reshape(o, &[B, t, C])
            }
            _ => b.op(Op::GatedAdd, &[x, y, rows]),
        };
        vals.push(out);
    }
    for (i, v) in vals.iter().rev().take(outputs).enumerate() {
        b.output(format!("out{i}"), *v);
    }
    b.finish().expect("instructions make valid programs")
}

/// The outputs whose names start with `out`.
fn results(program: &Program) -> Vec<Vec<u32>> {
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    let mut random = Random::named("planner");
    let inputs: Vec<(String, Region)> = [3, 5]
        .map(|t| {
            let data: Vec<f32> = (0..B * t * C).map(|_| random.normal()).collect();
            let region = Region::from_f32(&backend, &[B, t, C], &data).expect("memory");
            (format!("in{t}"), region)
        })
        .into();
    let outputs: Vec<(&str, Region)> = program
        .outs
        .iter()
        .map(|(name, v)| {
            let shape = &program.vals[v.index()].shape;
            (
                name.as_str(),
                Region::zeros(&backend, shape, DType::F32).expect("memory"),
            )
        })
        .collect();
    let ins: Vec<(&str, &Region)> = inputs.iter().map(|(n, r)| (n.as_str(), r)).collect();
    let outs: Vec<(&str, &Region)> = outputs.iter().map(|(n, r)| (*n, r)).collect();
    let mut ready = prepare(&backend, program, &NoWeights, &ins, &outs).expect("prepares");
    // A second run finds the arena full of the first one's values.
    for _ in 0..2 {
        ready.run(&[0.7, -0.4]).expect("runs");
    }
    outputs
        .iter()
        .filter(|(name, _)| name.starts_with("out"))
        .map(|(_, r)| {
            r.read_f32(&backend)
                .expect("is read")
                .iter()
                .map(|x| x.to_bits())
                .collect()
        })
        .collect()
}

/// Steps during which each value of the arena holds something: from the one that computes it to
/// the one that reads it last.
fn lifetimes(program: &Program) -> Vec<Range<usize>> {
    let mut lives = vec![0..0; program.vals.len()];
    for (i, step) in program.steps.iter().enumerate() {
        lives[step.out.index()] = i..i + 1;
        for v in &step.ins {
            lives[program.root(*v).index()].end = i + 1;
        }
    }
    for (_, v) in &program.outs {
        lives[program.root(*v).index()].end = program.steps.len() + 1;
    }
    lives
}

/// What two values that live at once and share memory are, if not an allowed writing over.
fn clash(program: &Program, align: usize, piece: usize, scratch: usize) -> Option<String> {
    let plan = plan(program, align, piece, &|_| false, &|_| scratch);
    let lives = lifetimes(program);
    let place = |v: usize| plan.offsets[v].map(|at| at..at + program.vals[v].bytes());
    let apart = |a: &Range<usize>, b: &Range<usize>| a.end <= b.start || b.end <= a.start;
    let temps: Vec<usize> = (0..program.vals.len())
        .filter(|&v| matches!(program.vals[v].kind, ValKind::Temp))
        .collect();
    for &v in &temps {
        let Some(own) = place(v) else {
            return Some(format!("value {v} has no place"));
        };
        if !own.start.is_multiple_of(align) || own.end > plan.arena_bytes {
            return Some(format!("value {v} lies at {own:?} of {}", plan.arena_bytes));
        }
        let into = own.start % piece;
        if into > 0 && into + own.len() > piece {
            return Some(format!("value {v} at {own:?} crosses pieces of {piece}"));
        }
        for step in lives[v].clone().filter(|s| *s < program.steps.len()) {
            let room = plan.scratch[step]..plan.scratch[step] + scratch;
            if !apart(&own, &room) {
                return Some(format!(
                    "value {v} shares memory with the scratch of step {step}"
                ));
            }
        }
        for &w in temps.iter().filter(|&&w| w > v) {
            if apart(&lives[v], &lives[w]) || place(w).is_some_and(|p| apart(&own, &p)) {
                continue;
            }
            let step = &program.steps[lives[w].start];
            let first = program.root(step.ins[0]).index() == v;
            let once = step
                .ins
                .iter()
                .filter(|i| program.root(**i).index() == v)
                .count()
                == 1;
            let over = lives[v].end == lives[w].start + 1 && first && once;
            if !(over && step.op.may_overwrite() && place(w) == Some(own.clone())) {
                return Some(format!("values {v} and {w} live at once and share memory"));
            }
        }
    }
    None
}

fn instructions() -> impl Strategy<Value = Vec<Instruction>> {
    prop::collection::vec(any::<Instruction>(), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_arena_changes_no_bit(list in instructions(), outputs in 1usize..4) {
        let program = write(&list, outputs);
        let mut apart = program.clone();
        for (i, info) in program.vals.iter().enumerate() {
            if matches!(info.kind, ValKind::Temp) {
                apart.taps.push((format!("tap{i}"), Val(i as u32)));
            }
        }
        apart.expose();
        prop_assert_eq!(results(&program), results(&apart));
    }

    #[test]
    fn values_that_live_at_once_lie_apart(list in instructions(), outputs in 1usize..4) {
        let program = write(&list, outputs);
        for (align, piece, scratch) in [
            (4, usize::MAX, 0),
            (64, usize::MAX, 100),
            (256, usize::MAX, 4096),
            (64, 512, 100),
            (256, 1024, 600),
        ] {
            prop_assert_eq!(clash(&program, align, piece, scratch), None);
        }
    }
}

#[test]
fn a_long_chain_needs_the_memory_of_one_value() {
    let mut b = Builder::new("chain", Math::F32);
    let x = b.input("x", &[1, 64, 64]);
    let y = (0..50).fold(x, |x, _| b.silu(x));
    b.output("y", y);
    let program = b.finish().expect("the program is sound");
    let plan = plan(&program, 64, usize::MAX, &|_| false, &|_| 0);
    assert_eq!(plan.arena_bytes, 64 * 64 * 4);
}
