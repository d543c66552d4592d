//! Pipelines: made of shaders when a program that needs them is prepared, several at a time, and
//! kept on disk where the driver gives them out.

use crate::disk::Disk;
use crate::gpu::{BINDINGS, Gpu, PARAMETER_BYTES};
use crate::kernels::{Shader, Variant};
use engine::{Error, Result};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most pipelines that are compiled at a time.
const THREADS: usize = 8;

/// Number of bindings, and those that are only read.
type LayoutKey = (usize, &'static [usize]);

/// Compiled shaders of a device.
pub struct Pipelines {
    gpu: Arc<Gpu>,
    layouts: Mutex<HashMap<LayoutKey, Arc<Layout>>>,
    made: Mutex<HashMap<String, Arc<Pipeline>>>,
    disk: Option<Disk>,
}

/// What a pipeline is bound to.
struct Layout {
    group: wgpu::BindGroupLayout,
    pipeline: wgpu::PipelineLayout,
}

/// A compiled shader.
pub struct Pipeline {
    /// What runs.
    pub compute: wgpu::ComputePipeline,
    /// What it wants bound.
    pub group: wgpu::BindGroupLayout,
}

impl Pipelines {
    /// None yet, but for those that `disk` remembers.
    pub fn new(gpu: Arc<Gpu>, disk: Option<Disk>) -> Self {
        Pipelines {
            gpu,
            layouts: Mutex::default(),
            made: Mutex::default(),
            disk,
        }
    }

    fn made(&self) -> MutexGuard<'_, HashMap<String, Arc<Pipeline>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compiles what of `variants` is not there yet.
    pub fn make<'a>(&self, variants: impl Iterator<Item = &'a Variant>) -> Result<()> {
        let mut seen = HashSet::new();
        let missing: Vec<_> = {
            let made = self.made();
            variants
                .map(|variant| (variant.key(), variant))
                .filter(|(key, _)| !made.contains_key(key) && seen.insert(key.clone()))
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((key, variant)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let pipeline = self.compile(variant)?;
                self.made().insert(key.clone(), Arc::new(pipeline));
            }
            Ok(())
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let helpers = cores.min(THREADS).min(missing.len()) - 1;
        std::thread::scope(|scope| {
            let helpers: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
            let mut all = work();
            for helper in helpers {
                let ended = helper.join().unwrap_or_else(|_| {
                    Err(Error::Bug("a thread that compiles shaders panicked".into()))
                });
                all = all.and(ended);
            }
            all
        })?;
        self.gpu.check()?;
        if let Some(disk) = &self.disk {
            disk.save();
        }
        Ok(())
    }

    /// The pipeline of `variant`, which was made.
    pub fn get(&self, variant: &Variant) -> Result<Arc<Pipeline>> {
        self.made()
            .get(&variant.key())
            .cloned()
            .ok_or_else(|| Error::Bug(format!("shader {} was not compiled", variant.shader.name)))
    }

    fn compile(&self, variant: &Variant) -> Result<Pipeline> {
        let device = &self.gpu.device;
        let layout = self.layout(variant.shader);
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(variant.shader.name),
            source: wgpu::ShaderSource::Wgsl(Cow::Owned(variant.text())),
        };
        let checked = self.gpu.checks;
        let checks = match checked {
            true => wgpu::ShaderRuntimeChecks::checked(),
            false => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        // SAFETY: shapes are checked when a program is built, launchers derive every index from
        // them, and each shader tests its thread against the sizes in its parameters; loops are
        // bounded by these sizes. Values read from memory (ids, positions, lengths) are clamped.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.shader.name),
            layout: Some(&layout.pipeline),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: checked,
            },
            cache: self.disk.as_ref().map(Disk::cache),
        });
        if let Some(e) = pollster::block_on(scope.pop()) {
            self.gpu.check()?;
            return Err(Error::Bug(format!(
                "shader {} does not compile on {}: {e}",
                variant.shader.name, self.gpu.name
            )));
        }
        Ok(Pipeline {
            compute,
            group: layout.group.clone(),
        })
    }

    fn layout(&self, shader: &'static Shader) -> Arc<Layout> {
        let mut layouts = self.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (shader.bindings, shader.weights);
        let make = || Arc::new(self.make_layout(shader));
        layouts.entry(key).or_insert_with(make).clone()
    }

    fn make_layout(&self, shader: &Shader) -> Layout {
        debug_assert!(shader.bindings as u32 <= BINDINGS);
        let entries: Vec<_> = (0..shader.bindings)
            .map(|i| wgpu::BindGroupLayoutEntry {
                binding: i as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage {
                        read_only: shader.weights.contains(&i),
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let group = self
            .gpu
            .device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries: &entries,
            });
        let pipeline = self
            .gpu
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &[Some(&group)],
                immediate_size: PARAMETER_BYTES,
            });
        Layout { group, pipeline }
    }
}
