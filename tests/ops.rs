//! Every operation of the CPU backend against the reference, at every level, in every form and
//! with several numbers of threads.

use engine::backend::cpu::{CpuBackend, Level};
use engine::backend::{Backend, NoWeights, Region, prepare};
use engine::program::{Builder, DType, Mask, Math, Op};
use tests::cases::Case;
use tests::conformance::conformance;
use tests::reference::evaluate;
use tests::run::{FUSED, Form, run};

fn backend(threads: usize, level: Level) -> CpuBackend {
    CpuBackend::new(threads, Some(level)).expect("an available level opens")
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
fn every_operation_agrees_with_the_reference_at_every_level() {
    let backends: Vec<_> = Level::available()
        .iter()
        .map(|&l| (l, backend(2, l)))
        .collect();
    each_case(|case| {
        let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
        for (level, backend) in &backends {
            let got = run(backend, case, Form::Plain).map_err(|e| format!("{level}: {e}"))?;
            want.compare(&got).map_err(|e| format!("{level}: {e}"))?;
        }
        Ok(())
    });
}

#[test]
fn threads_and_places_do_not_change_a_bit() {
    let backends: Vec<_> = [1, 2, 3].map(|n| backend(n, Level::detect())).into();
    each_case(|case| {
        let first = run(&backends[0], case, Form::Plain).map_err(|e| e.to_string())?;
        for (i, backend) in backends.iter().enumerate() {
            for form in [Form::Plain, Form::InPlace] {
                let ids = case.stored_as(0) == engine::program::DType::I32;
                let codes = matches!(case.op, engine::program::Op::FsqEncode { .. });
                if form == Form::InPlace && (ids || codes) {
                    continue;
                }
                let got = run(backend, case, form).map_err(|e| e.to_string())?;
                if let Some(at) = (0..got.len()).find(|&at| got[at] != first[at]) {
                    return Err(format!(
                        "{} threads, {form:?}: element {at} is {:e}, not {:e}",
                        i + 1,
                        got[at],
                        first[at]
                    ));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn fused_operations_mean_their_definitions() {
    let backend = backend(2, Level::detect());
    let mut fused = 0;
    each_case(|case| {
        if FUSED.contains(&case.op.name()) {
            fused += 1;
            let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
            let got = run(&backend, case, Form::Defined).map_err(|e| e.to_string())?;
            want.compare(&got)?;
        }
        Ok(())
    });
    assert!(
        fused >= FUSED.len(),
        "only {fused} cases of fused operations"
    );
}

#[test]
fn the_list_of_fused_operations_is_the_engines() {
    for case in conformance() {
        let primitive = |op: &engine::program::Op| !FUSED.contains(&op.name());
        let program = tests::run::program(&case, Form::Plain).expect(&case.name);
        let lowered = engine::program::lower(&program, &|_| false);
        // A primitive cannot be lowered further; a fused operation fails only at its parts.
        let fails_at_once = matches!(&lowered, Err(e) if e.to_string().contains(case.op.name()));
        assert!(
            fails_at_once == primitive(&case.op),
            "{}: {lowered:?}",
            case.name
        );
    }
}

#[test]
fn every_operation_has_a_case_of_its_own_name() {
    let cases = conformance();
    let mut names: Vec<&str> = cases.iter().map(|c| c.op.name()).collect();
    names.sort_unstable();
    names.dedup();
    // All but `reshape`, which is no step.
    assert_eq!(names.len(), 40, "{names:?}");
    let mut full: Vec<&str> = cases.iter().map(|c| c.name.as_str()).collect();
    full.sort_unstable();
    let n = full.len();
    full.dedup();
    assert_eq!(full.len(), n, "two cases have one name");
}

#[test]
fn the_backend_claims_every_operation() {
    let backend = backend(1, Level::detect());
    for case in conformance() {
        assert!(backend.claims(&case.op), "{}", case.name);
    }
}

/// Keys and values beyond the lengths are not numbers; no result may notice.
#[test]
fn hidden_keys_are_not_read() {
    let kinds = [
        (Math::F32, DType::F32),
        (Math::Bf16, DType::F32),
        (Math::Bf16, DType::BF16),
    ];
    for (math, kept) in kinds {
        for (level, t) in Level::available().iter().flat_map(|l| [(*l, 3), (*l, 30)]) {
            for mask in [Mask::Full, Mask::Causal] {
                let got = hidden(&backend(2, level), math, kept, mask, t);
                let near = |x: &f32| (x - 0.5).abs() < 1e-6;
                assert!(
                    got.iter().all(near),
                    "{level} {math:?} {kept:?}, {t} queries, {mask:?}: {got:?}"
                );
            }
        }
    }
}

/// Attention over values of 0.5 that become NaN behind the 37 keys of the second row.
fn hidden(backend: &CpuBackend, math: Math, kept: DType, mask: Mask, t: usize) -> Vec<f32> {
    let (b, s, kv_heads, d) = (2, 150, 1, 32);
    let mut p = Builder::new("hidden", math);
    let q = p.input("q", &[b, t, 2, d]);
    let [k, v] = ["k", "v"].map(|n| p.input_of(n, &[b, s, kv_heads, d], kept));
    let l = p.constant_i32(&[b], vec![150, 37]);
    let out = p.op(Op::Attention { mask }, &[q, k, v, l]);
    p.output("out", out);
    let program = p.finish().expect("the program is sound");
    let ones = vec![1.0; b * t * 2 * d];
    let q = Region::from_f32(backend, &[b, t, 2, d], &ones).expect("memory");
    let mut keys = vec![0.5; b * s * d];
    keys[(s + 37) * d..].fill(f32::NAN);
    let k = Region::zeros(backend, &[b, s, kv_heads, d], kept).expect("memory");
    k.write_f32(backend, &keys).expect("is written");
    let out = Region::zeros(backend, &[b, t, 2, d], DType::F32).expect("memory");
    let ins = [("q", &q), ("k", &k), ("v", &k)];
    let mut ready = prepare(backend, &program, &NoWeights, &ins, &[("out", &out)]).expect("ready");
    ready.run(&[]).expect("runs");
    out.read_f32(backend).expect("is read")
}

/// What one run writes the next one finds, at places of its own per item; a place that does not
/// exist is refused.
#[test]
fn states_are_kept_from_run_to_run() {
    let backend = backend(2, Level::detect());
    let mut p = Builder::new("state", Math::F32);
    let cache = p.state("cache", &[2, 4, 1], DType::F32);
    let rows = p.input("rows", &[2, 2, 1]);
    let at = p.input_i32("at", &[2]);
    let cache = p.write_rows(cache, rows, at);
    let twice = p.add(cache, cache);
    p.output("twice", twice);
    let program = p.finish().expect("the program is sound");
    let cache = Region::zeros(&backend, &[2, 4, 1], DType::F32).expect("memory");
    let rows = Region::from_f32(&backend, &[2, 2, 1], &[1.0, 2.0, 3.0, 4.0]).expect("memory");
    let at = Region::zeros(&backend, &[2], DType::I32).expect("memory");
    let out = Region::zeros(&backend, &[2, 4, 1], DType::F32).expect("memory");
    let ins = [("cache", &cache), ("rows", &rows), ("at", &at)];
    let outs = [("twice", &out)];
    let mut ready = prepare(&backend, &program, &NoWeights, &ins, &outs).expect("ready");
    let mut run = |places: [i32; 2]| {
        at.write_i32(&backend, &places).expect("is written");
        ready.run(&[])
    };
    run([0, 2]).expect("runs");
    run([1, 0]).expect("runs");
    let want = [1.0, 1.0, 2.0, 0.0, 3.0, 4.0, 3.0, 4.0];
    assert_eq!(cache.read_f32(&backend).expect("is read"), want);
    let got = out.read_f32(&backend).expect("is read");
    assert_eq!(got, want.map(|x| 2.0 * x));
    for places in [[3, 0], [0, -1], [i32::MIN, 0], [0, i32::MAX]] {
        let error = run(places).expect_err("there is no such row");
        assert!(error.to_string().contains("a state with 4 rows"), "{error}");
    }
    assert_eq!(cache.read_f32(&backend).expect("is read"), want);
}

#[test]
fn dtypes_that_do_not_belong_together_are_refused() {
    let mut p = Builder::new("mixed keys", Math::F32);
    let q = p.input("q", &[1, 1, 1, 2]);
    let k = p.input_of("k", &[1, 3, 1, 2], DType::BF16);
    let out = p.attention(q, k, q, Mask::Full);
    p.output("out", out);
    let error = p.finish().expect_err("values of another dtype");
    assert!(error.to_string().contains("one dtype"), "{error}");
    let mut p = Builder::new("short rows", Math::F32);
    let cache = p.state("cache", &[1, 3, 2], DType::F32);
    let rows = p.input_of("rows", &[1, 1, 2], DType::BF16);
    let at = p.input_i32("at", &[1]);
    p.write_rows(cache, rows, at);
    let error = p.finish().expect_err("rows of another dtype");
    assert!(error.to_string().contains("cache of f32"), "{error}");
}

#[test]
fn only_states_are_changed() {
    let mut p = Builder::new("no state", Math::F32);
    let x = p.input("x", &[1, 4, 2]);
    let at = p.input_i32("at", &[1]);
    p.write_rows(x, x, at);
    let error = p.finish().expect_err("an input is only read");
    assert!(
        error.to_string().contains("changes what is no state"),
        "{error}"
    );
}
