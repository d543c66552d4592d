//! The WebGPU backend on a device that offers little: operands that exceed a binding, weights that
//! exceed the largest buffer, memory that is too small. What can be divided is, with the same
//! result; what cannot is refused with figures.

use engine::Error;
use shaders::Options;
use std::collections::BTreeSet;
use tests::adapter;
use tests::cases::Case;
use tests::conformance::conformance;
use tests::reference::evaluate;
use tests::run::{Form, run};

const KIB: u64 = 1 << 10;

/// Operations of which an operand must be seen whole: one row of a time more than is bound, keys
/// of which every query may see each, a slab that is chosen on the device.
const WHOLE: [&str; 4] = ["silu", "attention", "attention_weights", "select_slab"];

/// Bytes of the largest buffer that a case allocates beside its weights.
fn largest_buffer(case: &Case) -> u64 {
    let weights = case.op.weight_inputs();
    let ins = case.ins.iter().enumerate();
    let ins = ins.filter(|(i, _)| !weights.contains(i)).map(|(i, input)| {
        let elements: usize = input.shape.iter().product();
        elements * case.stored_as(i).bytes()
    });
    let program = tests::run::program(case, Form::Plain).expect("the case is sound");
    let out = program.vals[program.outs[0].1.index()].bytes();
    // The result lies between two blocks of sentinels.
    ins.chain([3 * out]).max().unwrap_or(0) as u64
}

/// What became of the operations on a device of these limits.
#[derive(Debug, Default)]
struct Tally {
    /// Cases that took more dispatches than with larger bindings.
    divided: usize,
    /// Cases with weights in several buffers.
    cut: usize,
    /// Operations of cases that were refused although their buffers exist.
    refused: BTreeSet<&'static str>,
}

/// Runs all cases that the largest buffer has room for.
fn run_all(binding: u64, buffer: u64) -> Option<Tally> {
    let whole = adapter::open(&Options::default())?;
    let small = adapter::open(&Options {
        binding_bytes: Some(binding),
        buffer_bytes: Some(buffer),
        ..Options::default()
    })?;
    let mut tally = Tally::default();
    let mut faults = Vec::new();
    for case in conformance() {
        let before = [whole.counts(), small.counts()];
        let got = match run(&small, &case, Form::Plain) {
            Ok(got) => got,
            Err(Error::TooBig { needs, have, .. }) => {
                assert!(needs > have, "{}: {needs}, {have}", case.name);
                if largest_buffer(&case) <= buffer {
                    tally.refused.insert(case.op.name());
                }
                continue;
            }
            Err(error) => {
                faults.push(format!("{}: {error}", case.name));
                continue;
            }
        };
        let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
        if let Err(fault) = want.compare(&got) {
            faults.push(format!("{}: {fault}", case.name));
        }
        run(&whole, &case, Form::Plain).expect("runs undivided");
        let after = [whole.counts(), small.counts()];
        let [undivided, divided] = [0, 1].map(|i| after[i].dispatches - before[i].dispatches);
        tally.divided += usize::from(divided > undivided);
        tally.cut += usize::from(after[1].cut_weights > before[1].cut_weights);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Some(tally)
}

#[test]
fn operands_beyond_a_binding_are_divided() {
    let Some(tally) = run_all(64 * KIB, 8192 * KIB) else {
        return;
    };
    println!("64 KiB at once, 8 MiB in a buffer: {tally:?}");
    assert!(tally.divided >= 60, "{tally:?}");
    assert_eq!(tally.cut, 0);
    assert!(
        tally.refused.iter().all(|op| WHOLE.contains(op)),
        "{tally:?}"
    );
}

#[test]
fn weights_beyond_a_buffer_lie_in_several() {
    let Some(tally) = run_all(16 * KIB, 64 * KIB) else {
        return;
    };
    println!("16 KiB at once, 64 KiB in a buffer: {tally:?}");
    assert!(tally.divided >= 20 && tally.cut >= 10, "{tally:?}");
}
