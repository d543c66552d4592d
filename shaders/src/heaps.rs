//! How much memory a device has. WebGPU does not say; drivers do.

use crate::adapters::Adapter;
use engine::backend::cpu::physical_bytes;

/// Bytes that this process may use, as far as anybody says; 0 where nobody does.
///
/// Of a device with memory of its own this is what the driver says (Vulkan: the largest heap of
/// the device and what of it other processes leave), of one that shares the processor's at most
/// what the machine has. Metal and DX12 say nothing that we ask for: there only devices that share
/// memory have a figure.
pub fn memory_bytes(adapter: &Adapter) -> u64 {
    let said = said(adapter).unwrap_or(0);
    if !adapter.is_unified() {
        return said;
    }
    match (said, physical_bytes()) {
        (0, machine) => machine,
        (said, 0) => said,
        (said, machine) => said.min(machine),
    }
}

#[cfg(any(windows, target_os = "linux"))]
fn said(adapter: &Adapter) -> Option<u64> {
    use ash::vk;
    // SAFETY: the handles are only asked for properties, while the adapter keeps them alive.
    let vulkan = unsafe { adapter.adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    let device = vulkan.raw_physical_device();
    let tells_budget = vulkan
        .physical_device_capabilities()
        .supports_extension(ash::ext::memory_budget::NAME);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut properties = vk::PhysicalDeviceMemoryProperties2::default();
    if tells_budget {
        properties = properties.push_next(&mut budget);
    }
    // SAFETY: the structures are as Vulkan 1.1, which wgpu demands, and the extension define
    // them; both outlive the call.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut properties) };
    let memory = properties.memory_properties;
    let heaps = &memory.memory_heaps[..(memory.memory_heap_count as usize).min(16)];
    let heaps = heaps.iter().enumerate();
    // Of shared memory any heap will do; what is called local may be a small part set aside.
    let shared = adapter.is_unified();
    let local = |heap: &vk::MemoryHeap| heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let own = heaps.filter(|(_, heap)| shared || local(heap));
    let left = |(i, heap): (usize, &vk::MemoryHeap)| match budget.heap_budget[i] {
        0 => heap.size,
        budget => budget.min(heap.size),
    };
    own.map(left).max()
}

#[cfg(not(any(windows, target_os = "linux")))]
fn said(_: &Adapter) -> Option<u64> {
    None
}
