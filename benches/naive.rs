//! The f32 product of 512³ by the WebGPU backend beside the plainest shader that computes it
//! (`naive.wgsl`), on the first device.
//!
//! `cargo bench -p benches --bench naive`; how many times faster ours is follows the report. What
//! both compute is compared first.

use criterion::{BenchmarkId, Criterion, Throughput};
use engine::backend::Backend;
use engine::program::{DType, Math, Op};
use shaders::{Options, WgpuBackend, adapters};
use std::time::{Duration, Instant};
use tests::cases::{Case, Fill};
use tests::run::{Form, Prepared};

const SIDE: usize = 512;
const BYTES: usize = SIDE * SIDE * size_of::<f32>();

fn main() {
    let backend = WgpuBackend::open_with(0, &Options::default()).expect("there is a device");
    let normal = Fill::Normal(1.0);
    let shape: &[usize] = &[SIDE, SIDE];
    let case =
        Case::new(Op::Linear, &[(shape, normal), (shape, normal)]).stored(DType::F32, Math::F32);
    let mut ours = Prepared::new(&backend, &case, Form::Plain).expect("the case is sound");
    let naive = Naive::new(&case);
    ours.ready.run(&[]).expect("runs");
    compare(&ours.result(&backend).expect("a result"), &naive.run(true));

    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .without_plots()
        .configure_from_args();
    let mut group = criterion.benchmark_group("f32 product");
    // Criterion's "elements" are floating-point operations here.
    group.throughput(Throughput::Elements(2 * (SIDE as u64).pow(3)));
    let best_naive = measure(&mut group, "naive", || drop(naive.run(false)));
    let out = ours.region().buffer().clone();
    let best_ours = measure(&mut group, "ours", || {
        ours.ready.run(&[]).expect("runs");
        // Runs are batched; a reader waits for them.
        backend.read(&out, 0, &mut [0; 4]).expect("a word");
    });
    group.finish();
    criterion.final_summary();
    let name = &backend.caps().name;
    println!(
        "\n{name}: naive {:.1} ms, ours {:.1} ms, {:.2} times as fast",
        best_naive * 1e3,
        best_ours * 1e3,
        best_naive / best_ours
    );
}

type Group<'a> = criterion::BenchmarkGroup<'a, criterion::measurement::WallTime>;

/// Seconds of the fastest run.
fn measure(group: &mut Group<'_>, name: &str, mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    group.bench_function(BenchmarkId::new(name, SIDE), |b| {
        b.iter_custom(|n| {
            let mut total = Duration::ZERO;
            for _ in 0..n {
                let start = Instant::now();
                run();
                let once = start.elapsed();
                best = best.min(once.as_secs_f64());
                total += once;
            }
            total
        });
    });
    best
}

fn compare(ours: &[f64], naive: &[f32]) {
    assert_eq!(ours.len(), naive.len());
    for (at, (y, z)) in ours.iter().zip(naive).enumerate() {
        assert!((y - f64::from(*z)).abs() < 1e-3, "{at}: {y}, {z}");
    }
}

/// The naive shader on a device of its own: the same adapter.
struct Naive {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    out: wgpu::Buffer,
    read: wgpu::Buffer,
}

impl Naive {
    fn new(case: &Case) -> Self {
        let adapter = adapters().swap_remove(0).into_raw();
        let (device, queue) = pollster::block_on(adapter.request_device(&Default::default()))
            .expect("the adapter opens");
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: BYTES as u64,
                usage,
                mapped_at_creation: false,
            })
        };
        let storage = wgpu::BufferUsages::STORAGE;
        let operands: Vec<_> = case
            .values()
            .iter()
            .map(|value| {
                let operand = buffer(storage | wgpu::BufferUsages::COPY_DST);
                let bytes: Vec<u8> = value.data.iter().flat_map(|x| x.to_le_bytes()).collect();
                queue.write_buffer(&operand, 0, &bytes);
                operand
            })
            .collect();
        let out = buffer(storage | wgpu::BufferUsages::COPY_SRC);
        let read = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let pipeline = pipeline(&device);
        let entries: Vec<_> = [&operands[0], &operands[1], &out]
            .into_iter()
            .enumerate()
            .map(|(i, buffer)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Naive {
            device,
            queue,
            pipeline,
            group,
            out,
            read,
        }
    }

    /// Runs it once and waits; the result if it is `wanted`.
    fn run(&self, wanted: bool) -> Vec<f32> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &self.group, &[]);
            pass.dispatch_workgroups(SIDE as u32 / 8, SIDE as u32 / 8, 1);
        }
        if wanted {
            encoder.copy_buffer_to_buffer(&self.out, 0, &self.read, 0, BYTES as u64);
        }
        self.queue.submit([encoder.finish()]);
        if wanted {
            self.read.map_async(wgpu::MapMode::Read, .., |mapped| {
                mapped.expect("the result is mapped");
            });
        }
        let waited = self.device.poll(wgpu::PollType::wait_indefinitely());
        waited.expect("the device answers");
        if !wanted {
            return Vec::new();
        }
        let view = self.read.get_mapped_range(..).expect("it is mapped");
        let words = view.chunks_exact(4);
        words
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect()
    }
}

fn pipeline(device: &wgpu::Device) -> wgpu::ComputePipeline {
    let descriptor = wgpu::include_wgsl!("naive.wgsl");
    // SAFETY: the shader tests its thread against the sizes, which are those of the buffers, and
    // its loop ends. Ours runs without further checks too.
    let module = unsafe {
        device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
    };
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    })
}
