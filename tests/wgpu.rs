//! The WebGPU backend on whatever device is there, a software driver in CI: every operation
//! against the reference, in all the ways that other devices have them computed.

use engine::backend::by_definition;
use engine::program::{DType, Math, Op};
use shaders::{Options, WgpuBackend};
use std::sync::LazyLock;
use tests::adapter;
use tests::cases::Case;
use tests::conformance::conformance;
use tests::reference::evaluate;
use tests::run::{Form, program, run};

/// The first device, which must be there where CI is set.
fn backend() -> Option<&'static WgpuBackend> {
    // One for all tests: most of their time is spent on compiling.
    static BACKEND: LazyLock<Option<WgpuBackend>> =
        LazyLock::new(|| adapter::open(&Options::default()));
    BACKEND.as_ref()
}

/// Options under which a software device runs what other devices run: without subgroups; as
/// hardware with small tiles, and with large tiles but without subgroups.
fn other_devices() -> [Options; 3] {
    let plain = Options {
        without_subgroups: true,
        ..Options::default()
    };
    let small = Options {
        as_hardware: true,
        workgroup_bytes: Some(16 << 10),
        ..Options::default()
    };
    let large = Options {
        as_hardware: true,
        without_subgroups: true,
        busy: Some(2),
        ..Options::default()
    };
    [plain, small, large]
}

/// Whether devices differ in how they compute it.
fn has_ways(case: &Case) -> bool {
    // How weights are stored is read the same in every way; most of the time goes into compiling.
    let once = match case.weights {
        DType::F16 => true,
        DType::BF16 => case.math == Math::F32,
        DType::F32 | DType::I32 => false,
    };
    let norm = matches!(
        case.op,
        Op::RmsNorm { .. } | Op::RmsNormModulate { .. } | Op::Rope | Op::NormRope { .. }
    );
    norm || case.has_products() && !once
}

/// Runs all cases; `f` says what is wrong with one, and everything wrong is reported at once.
fn each_case(mut f: impl FnMut(&Case) -> Result<(), String>) {
    let faults: Vec<String> = conformance()
        .iter()
        .filter_map(|case| f(case).err().map(|e| format!("{}: {e}", case.name)))
        .collect();
    assert!(
        faults.is_empty(),
        "{} cases failed:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn every_operation_agrees_with_the_reference() {
    let Some(backend) = backend() else { return };
    each_case(|case| {
        let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
        let got = run(backend, case, Form::Plain).map_err(|e| e.to_string())?;
        want.compare(&got)
    });
}

#[test]
fn every_way_agrees_with_the_reference() {
    for options in other_devices() {
        let Some(backend) = adapter::open(&options) else {
            return;
        };
        each_case(|case| {
            if !has_ways(case) {
                return Ok(());
            }
            let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
            let first = run(&backend, case, Form::Plain).map_err(|e| e.to_string())?;
            want.compare(&first)?;
            let again = run(&backend, case, Form::InPlace).map_err(|e| e.to_string())?;
            match first == again {
                true => Ok(()),
                false => Err("another time, another place, another result".into()),
            }
        });
    }
}

#[test]
fn places_and_repetition_do_not_change_a_bit() {
    let Some(backend) = backend() else { return };
    each_case(|case| {
        let first = run(backend, case, Form::Plain).map_err(|e| e.to_string())?;
        for form in [Form::Plain, Form::InPlace] {
            let codes = matches!(case.op, Op::FsqEncode { .. });
            if form == Form::InPlace && (case.stored_as(0) == DType::I32 || codes) {
                continue;
            }
            let got = run(backend, case, form).map_err(|e| e.to_string())?;
            if let Some(at) = (0..got.len()).find(|&at| got[at] != first[at]) {
                return Err(format!(
                    "{form:?}: element {at} is {} and {}",
                    got[at], first[at]
                ));
            }
        }
        Ok(())
    });
}

#[test]
fn nothing_runs_by_definition() {
    let Some(backend) = backend() else { return };
    each_case(|case| {
        let program = program(case, Form::Plain).map_err(|e| e.to_string())?;
        let replaced = by_definition(backend, &program).map_err(|e| e.to_string())?;
        match replaced.is_empty() {
            true => Ok(()),
            false => Err(format!("{replaced:?}")),
        }
    });
}
