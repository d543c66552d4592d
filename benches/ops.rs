//! The hot operations at the sizes of the model.
//!
//! `cargo bench -p benches --bench ops` measures f32 and bf16 products at the highest level of the
//! processor, `cargo bench -p benches --bench ops -- FILTER` the cases whose name contains FILTER;
//! `ACESTEP_BENCH_THREADS` and `ACESTEP_BENCH_LEVEL` choose threads and instruction set. A table
//! of the fastest runs follows the report.

use criterion::{Criterion, Throughput};
use engine::backend::cpu::{CpuBackend, Level};
use engine::program::Math;
use std::time::{Duration, Instant};
use tests::cases::{Case, traffic};
use tests::model_cases::model;
use tests::run::{Form, Prepared};

/// Time for one case: long enough for the fastest of many runs to be stable, short enough for
/// all cases within two minutes.
const BUDGET: Duration = Duration::from_millis(700);

fn main() {
    let threads = variable("ACESTEP_BENCH_THREADS").unwrap_or_else(CpuBackend::default_threads);
    let backend = CpuBackend::new(threads, variable::<Level>("ACESTEP_BENCH_LEVEL"))
        .expect("the processor has the level asked for");
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(BUDGET)
        .without_plots()
        .configure_from_args();
    let mut table = Vec::new();
    for math in [Math::F32, Math::Bf16] {
        for case in model(math) {
            // Operations without products are the same in both.
            if math == Math::F32 || case.has_products() {
                measure(&mut criterion, &backend, &case, &mut table);
            }
        }
    }
    criterion.final_summary();
    println!(
        "\n{:>10} {:>9} {:>7}  {} threads, {}",
        "ms",
        "GFLOP/s",
        "GB/s",
        threads,
        backend.level()
    );
    table.iter().for_each(|line| println!("{line}"));
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn measure(criterion: &mut Criterion, backend: &CpuBackend, case: &Case, table: &mut Vec<String>) {
    let mut group = criterion.benchmark_group(case.op.name());
    let (flops, bytes) = (case.flops(), traffic(case));
    group.throughput(match flops > 0.0 {
        // Criterion's "elements" are floating-point operations here.
        true => Throughput::Elements(flops as u64),
        false => Throughput::Bytes(bytes as u64),
    });
    let mut prepared = None;
    let mut best = f64::INFINITY;
    let name = case
        .name
        .split_once(' ')
        .map_or(case.op.name(), |(_, sizes)| sizes);
    group.bench_function(name, |b| {
        // Prepared only when the filter lets the case through.
        let ready = prepared.get_or_insert_with(|| {
            Prepared::new(backend, case, Form::Plain)
                .expect("the case is sound")
                .ready
        });
        b.iter_custom(|n| {
            let mut total = Duration::ZERO;
            for _ in 0..n {
                let start = Instant::now();
                ready.run(&case.scalars).expect("runs");
                let once = start.elapsed();
                best = best.min(once.as_secs_f64());
                total += once;
            }
            total
        });
    });
    group.finish();
    if best.is_finite() {
        table.push(format!(
            "{:10.3} {:9.1} {:7.1}  {}",
            best * 1e3,
            flops / best / 1e9,
            bytes / best / 1e9,
            case.name
        ));
    }
}
