//! `acestep devices`: what there is to compute on, and what `auto` takes.

use super::Outcome;
use super::device::{AutoChoice, DeviceKind};
use engine::backend::Backend;
use engine::backend::cpu::CpuBackend;
use engine::error::human_bytes;
use engine::{Error, Result};
use serde_json::{Value, json};
use std::io::Write;

/// Flags of `devices`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Lists the processor and every adapter, and says which of them `auto` takes and why.
pub fn run(args: Args) -> Result<Outcome> {
    let cpu = CpuBackend::new(CpuBackend::default_threads(), None)?;
    let adapters = shaders::adapters();
    let choice = AutoChoice::among(&adapters);
    let text = match args.json {
        true => format!("{:#}\n", as_json(&cpu, &adapters, &choice)),
        false => as_text(&cpu, &adapters, &choice),
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|e| Error::Output(format!("cannot print the devices ({e})")))?;
    Ok(Outcome::Done)
}

fn as_text(cpu: &CpuBackend, adapters: &[shaders::Adapter], choice: &AutoChoice) -> String {
    let caps = cpu.caps();
    let mut text = format!(
        "cpu     {}, {} of memory\n",
        caps.name,
        human_bytes(caps.memory_bytes)
    );
    for adapter in adapters {
        text += &format!(
            "wgpu:{:<3}{} ({}, {:?}), driver {} {}\n",
            adapter.index,
            adapter.info.name,
            adapter.kind(),
            adapter.info.backend,
            adapter.info.driver,
            adapter.info.driver_info,
        );
        text += &format!(
            "        {} in one buffer, {} in one binding, {} of workgroup memory; {}\n",
            human_bytes(adapter.max_buffer_bytes()),
            human_bytes(adapter.max_binding_bytes()),
            human_bytes(adapter.workgroup_bytes().into()),
            match adapter.unusable() {
                None => adapter.features().join(", "),
                Some(why) => format!("cannot be used: {why}"),
            },
        );
    }
    text + &format!("auto    {}: {}\n", name(choice.kind), choice.why)
}

fn as_json(cpu: &CpuBackend, adapters: &[shaders::Adapter], choice: &AutoChoice) -> Value {
    let caps = cpu.caps();
    let list: Vec<Value> = adapters
        .iter()
        .map(|adapter| {
            json!({
                "device": format!("wgpu:{}", adapter.index),
                "name": adapter.info.name,
                "kind": adapter.kind(),
                "api": format!("{:?}", adapter.info.backend),
                "driver": adapter.info.driver,
                "driver_info": adapter.info.driver_info,
                "max_buffer_bytes": adapter.max_buffer_bytes(),
                "max_binding_bytes": adapter.max_binding_bytes(),
                "workgroup_bytes": adapter.workgroup_bytes(),
                "features": adapter.features(),
                "software": adapter.is_software(),
                "unusable": adapter.unusable(),
            })
        })
        .collect();
    json!({
        "cpu": {"name": caps.name, "memory_bytes": caps.memory_bytes},
        "adapters": list,
        "auto": {"device": name(choice.kind), "why": choice.why},
    })
}

fn name(kind: DeviceKind) -> String {
    match kind {
        DeviceKind::Auto => "auto".into(),
        DeviceKind::Cpu => "cpu".into(),
        DeviceKind::Cuda(index) => format!("cuda:{index}"),
        DeviceKind::Wgpu(index) => format!("wgpu:{index}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_device_is_listed_in_both_forms() {
        let cpu = CpuBackend::new(1, None).unwrap();
        let adapters = shaders::adapters();
        let choice = AutoChoice::among(&adapters);
        let text = as_text(&cpu, &adapters, &choice);
        let value = as_json(&cpu, &adapters, &choice);
        assert!(text.starts_with("cpu "), "{text}");
        assert_eq!(value["adapters"].as_array().unwrap().len(), adapters.len());
        for adapter in &adapters {
            assert!(text.contains(&format!("wgpu:{}", adapter.index)), "{text}");
            assert!(text.contains(&adapter.info.name), "{text}");
        }
        assert!(text.contains(&choice.why), "{text}");
    }
}
