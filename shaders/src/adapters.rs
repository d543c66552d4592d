//! The devices that the drivers of this machine offer.

use crate::gpu::{BINDINGS, PARAMETER_BYTES, THREADS, WORKGROUP_BYTES};
use std::fmt;

/// One device under one driver.
pub struct Adapter {
    /// Its number, as `wgpu:N` names it.
    pub index: usize,
    /// What the driver says of it.
    pub info: wgpu::AdapterInfo,
    pub(crate) adapter: wgpu::Adapter,
}

impl Adapter {
    /// What wgpu knows it as.
    pub fn into_raw(self) -> wgpu::Adapter {
        self.adapter
    }

    /// Whether it computes on the processor: such a device is for tests, and is never taken
    /// without being named.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Whether its memory is the processor's.
    pub fn is_unified(&self) -> bool {
        let kind = self.info.device_type;
        kind == wgpu::DeviceType::IntegratedGpu || self.is_software()
    }

    /// Bytes of its memory, or what of it this process may use where the driver says so; 0 where
    /// nobody says.
    pub fn memory_bytes(&self) -> u64 {
        crate::heaps::memory_bytes(self)
    }

    /// Largest piece of memory that a shader can see at once, in bytes.
    pub fn max_binding_bytes(&self) -> u64 {
        self.adapter.limits().max_storage_buffer_binding_size
    }

    /// Largest piece of memory that can be had at once, in bytes.
    pub fn max_buffer_bytes(&self) -> u64 {
        self.adapter.limits().max_buffer_size
    }

    /// Memory that a workgroup shares, in bytes.
    pub fn workgroup_bytes(&self) -> u32 {
        self.adapter.limits().max_compute_workgroup_storage_size
    }

    /// Why it cannot be used, if so.
    pub fn unusable(&self) -> Option<String> {
        if !self.adapter.features().contains(wgpu::Features::IMMEDIATES) {
            return Some("its driver has no parameter blocks (immediates)".into());
        }
        let offered = self.adapter.limits();
        let needs = [
            (
                "bytes of parameters",
                offered.max_immediate_size,
                PARAMETER_BYTES,
            ),
            (
                "storage bindings",
                offered.max_storage_buffers_per_shader_stage,
                BINDINGS,
            ),
            (
                "bytes of workgroup memory",
                offered.max_compute_workgroup_storage_size,
                WORKGROUP_BYTES,
            ),
            (
                "threads in a workgroup",
                offered.max_compute_invocations_per_workgroup,
                THREADS,
            ),
        ];
        needs
            .into_iter()
            .find(|(_, has, wanted)| has < wanted)
            .map(|(what, has, wanted)| format!("it offers {has} {what}, {wanted} are needed"))
    }

    /// Features that matter here, by name.
    pub fn features(&self) -> Vec<&'static str> {
        let offered = self.adapter.features();
        [
            (wgpu::Features::IMMEDIATES, "immediates"),
            (wgpu::Features::SHADER_F16, "f16"),
            (wgpu::Features::SUBGROUP, "subgroups"),
            (
                wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
                "cooperative matrices",
            ),
            (wgpu::Features::PIPELINE_CACHE, "pipeline cache"),
        ]
        .into_iter()
        .filter_map(|(feature, name)| offered.contains(feature).then_some(name))
        .collect()
    }

    /// Kind of device, for people.
    pub fn kind(&self) -> &'static str {
        match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "device",
        }
    }
}

impl fmt::Display for Adapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let info = &self.info;
        write!(
            f,
            "wgpu:{} {} ({}, {:?})",
            self.index,
            info.name,
            self.kind(),
            info.backend
        )
    }
}

/// All devices, hardware first: discrete, integrated, virtual, others, software. Of one card under
/// several drivers Vulkan comes first (matrix units, a cache for pipelines).
pub fn adapters() -> Vec<Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::PRIMARY,
        // What the system needs beside us is not to be had.
        memory_budget_thresholds: wgpu::MemoryBudgetThresholds {
            for_resource_creation: Some(97),
            for_device_loss: None,
        },
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<_> =
        pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY))
            .into_iter()
            .map(|adapter| (adapter.get_info(), adapter))
            .collect();
    // Stable: the drivers' own order decides between equals.
    found.sort_by_key(|(info, _)| {
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        (kind, info.backend != wgpu::Backend::Vulkan)
    });
    found
        .into_iter()
        .enumerate()
        .map(|(index, (info, adapter))| Adapter {
            index,
            info,
            adapter,
        })
        .collect()
}
