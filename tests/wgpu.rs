//! The WebGPU backend on whatever device is there, a software driver in CI: every operation
//! against the reference, and how often the device is used.

use engine::backend::by_definition;
use engine::program::{DType, Op};
use shaders::WgpuBackend;
use tests::cases::Case;
use tests::conformance::conformance;
use tests::reference::evaluate;
use tests::run::{Form, program, run};

/// The first device, which must be there where CI is set.
fn backend() -> Option<WgpuBackend> {
    match WgpuBackend::open(0) {
        Ok(backend) => Some(backend),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            eprintln!("skipped: no adapter: {error}");
            None
        }
    }
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
        let got = run(&backend, case, Form::Plain).map_err(|e| e.to_string())?;
        want.compare(&got)
    });
}

#[test]
fn places_and_repetition_do_not_change_a_bit() {
    let Some(backend) = backend() else { return };
    each_case(|case| {
        let first = run(&backend, case, Form::Plain).map_err(|e| e.to_string())?;
        for form in [Form::Plain, Form::InPlace] {
            let codes = matches!(case.op, Op::FsqEncode { .. });
            if form == Form::InPlace && (case.stored_as(0) == DType::I32 || codes) {
                continue;
            }
            let got = run(&backend, case, form).map_err(|e| e.to_string())?;
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
        let replaced = by_definition(&backend, &program).map_err(|e| e.to_string())?;
        match replaced.is_empty() {
            true => Ok(()),
            false => Err(format!("{replaced:?}")),
        }
    });
}
