//! The flags that choose where and how to compute, shared by every subcommand that computes.

use crate::env::Env;
use clap::ValueEnum;
use engine::backend::cpu::{CpuBackend, Level};
use engine::backend::{Backend, Device};
use engine::program::Math;
use engine::{Error, Result};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Arithmetic of the products; see [`engine::program::Math`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeFlag {
    /// f32 activations over the stored weights
    F32,
    /// bf16 products with f32 sums
    Bf16,
}

impl DtypeFlag {
    /// The engine's name for it.
    pub fn math(self) -> Math {
        match self {
            DtypeFlag::F32 => Math::F32,
            DtypeFlag::Bf16 => Math::Bf16,
        }
    }
}

/// Kind of device, as `--backend` and `ACESTEP_DEVICE` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The best there is: a GPU with a backend in this build, else the processor.
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA card.
    Cuda(usize),
    /// Any GPU through Vulkan, Metal or DX12.
    Wgpu(usize),
}

impl DeviceKind {
    /// What is opened for this kind.
    fn opened(self) -> Self {
        match self {
            DeviceKind::Auto => AutoChoice::among(&shaders::adapters()).kind,
            other => other,
        }
    }
}

/// What `auto` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoChoice {
    /// The device.
    pub kind: DeviceKind,
    /// The reason, for people.
    pub why: String,
}

impl AutoChoice {
    /// The first adapter that is hardware and can be used, else the processor. A software adapter
    /// is the processor too, only slower.
    pub fn among(adapters: &[shaders::Adapter]) -> Self {
        let hardware = |a: &&shaders::Adapter| !a.is_software() && a.unusable().is_none();
        match adapters.iter().find(hardware) {
            Some(adapter) => AutoChoice {
                kind: DeviceKind::Wgpu(adapter.index),
                why: format!("{} is the first usable GPU", adapter.info.name),
            },
            None => AutoChoice {
                kind: DeviceKind::Cpu,
                why: match adapters.is_empty() {
                    true => "no driver for Vulkan, Metal or DX12 offers a device".into(),
                    false => "no adapter is a usable GPU".into(),
                },
            },
        }
    }
}

impl std::str::FromStr for DeviceKind {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (
                name,
                index
                    .parse()
                    .map_err(|_| format!("{index:?} is not the number of a device"))?,
            ),
            None => (text.as_str(), 0),
        };
        match name {
            "auto" | "" => Ok(DeviceKind::Auto),
            "cpu" => Ok(DeviceKind::Cpu),
            "cuda" => Ok(DeviceKind::Cuda(index)),
            "wgpu" | "mps" | "xpu" => Ok(DeviceKind::Wgpu(index)),
            _ => Err("it must be auto, cpu, cuda[:N] or wgpu[:N]".into()),
        }
    }
}

/// Flags that choose the device.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DeviceArgs {
    /// Device to compute on: auto, cpu, cuda[:N], wgpu[:N] [default: $ACESTEP_DEVICE or auto]
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Arithmetic of the products [default: bf16 where the hardware has it, else f32; f32 for
    /// verify]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<DtypeFlag>,
    /// Threads of the CPU backend [default: $ACESTEP_THREADS or all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Highest instruction set of the CPU backend: portable, avx2, avx512, avx512bf16 [default:
    /// what the processor has]
    #[arg(long, value_name = "LEVEL")]
    pub cpu_level: Option<Level>,
}

impl DeviceArgs {
    /// Opens the device that flags and environment name. Without `--dtype` the arithmetic is
    /// bf16 where the hardware has it.
    pub fn open(&self) -> Result<Device> {
        self.open_with(&Env::of_process())
    }

    /// As [`Self::open`] in a given environment.
    pub fn open_with(&self, env: &Env) -> Result<Device> {
        let named = self.check(env)?;
        let backend: Arc<dyn Backend> = match named.opened() {
            DeviceKind::Cuda(index) => kernels::open(index)?,
            DeviceKind::Wgpu(index) => match shaders::open(index) {
                // Nobody asked for this device; the processor is there in any case.
                Err(error) if named == DeviceKind::Auto => {
                    tracing::warn!("{error}; computing on the processor");
                    self.open_cpu(env)?
                }
                opened => opened?,
            },
            DeviceKind::Auto | DeviceKind::Cpu => self.open_cpu(env)?,
        };
        let math = match self.dtype {
            Some(dtype) => dtype.math(),
            None if backend.caps().native_bf16 => Math::Bf16,
            None => Math::F32,
        };
        Ok(Device { backend, math })
    }

    fn open_cpu(&self, env: &Env) -> Result<Arc<dyn Backend>> {
        let threads = self
            .threads(env)?
            .map_or_else(CpuBackend::default_threads, usize::from);
        Ok(Arc::new(CpuBackend::new(threads, self.cpu_level)?))
    }

    /// The language model's device, by its flag or `ACESTEP_LM_DEVICE`; `None` where it is the
    /// one that [`Self::open_with`] opens.
    pub fn open_lm_with(&self, flag: Option<&str>, env: &Env) -> Result<Option<Device>> {
        const NAME: &str = "ACESTEP_LM_DEVICE";
        let (name, from) = match (flag, env.text(NAME)) {
            (Some(name), _) => (name, "--lm-device"),
            (None, Some(name)) => (name, NAME),
            (None, None) => return Ok(None),
        };
        let kind: DeviceKind = name
            .parse()
            .map_err(|why| Error::Request(format!("{from} {name} is not a device: {why}")))?;
        if kind.opened() == self.check(env)?.opened() {
            return Ok(None);
        }
        let device = DeviceArgs {
            backend: Some(name.to_owned()),
            ..self.clone()
        };
        let opened = device.open_with(env).map(Some);
        opened.map_err(|error| Error::Request(format!("{from} {name}: {error}")))
    }

    /// Refuses names and numbers that cannot be opened, without opening anything.
    pub fn check(&self, env: &Env) -> Result<DeviceKind> {
        let (name, from) = match (&self.backend, env.text("ACESTEP_DEVICE")) {
            (Some(name), _) => (name.as_str(), "--backend"),
            (None, Some(name)) => (name, "ACESTEP_DEVICE"),
            (None, None) => ("auto", "--backend"),
        };
        self.threads(env)?;
        name.parse()
            .map_err(|why| Error::Request(format!("{from} {name} is not a device: {why}")))
    }

    /// Number of threads by the flag, else by the variable.
    fn threads(&self, env: &Env) -> Result<Option<NonZeroUsize>> {
        const NAME: &str = "ACESTEP_THREADS";
        let (threads, from) = match self.threads {
            Some(threads) => (Some(threads), "--threads"),
            None => (env.parsed(NAME, "a whole number of at least 1")?, NAME),
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let most = MAX_THREADS.max(2 * cores);
        if threads.is_some_and(|n: NonZeroUsize| n.get() > most) {
            return Err(Error::Request(format!(
                "{from} must be at most {most}; more threads than the {cores} cores here only slow \
                 the song down"
            )));
        }
        Ok(threads)
    }
}

/// Threads that are allowed however few cores there are, to compare thread counts. Far beyond the
/// cores a run only waits for the scheduler.
const MAX_THREADS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_beats_the_variable() {
        let env = Env::of(&[("ACESTEP_DEVICE", "tpu")]);
        let flag = DeviceArgs {
            backend: Some("cpu".into()),
            ..Default::default()
        };
        assert_eq!(flag.check(&env), Ok(DeviceKind::Cpu));
        let none = DeviceArgs::default();
        assert!(
            none.check(&env)
                .is_err_and(|e| e.to_string().contains("ACESTEP_DEVICE tpu"))
        );
        assert_eq!(none.check(&Env::default()), Ok(DeviceKind::Auto));
    }

    #[test]
    fn threads_by_flag_or_variable() {
        let env = Env::of(&[("ACESTEP_THREADS", "3")]);
        let mut args = DeviceArgs::default();
        assert_eq!(args.threads(&env), Ok(NonZeroUsize::new(3)));
        args.threads = NonZeroUsize::new(2);
        assert_eq!(args.threads(&env), Ok(NonZeroUsize::new(2)));
        args.threads = None;
        assert_eq!(args.threads(&Env::default()), Ok(None));
        for wrong in ["0", "x", "99999"] {
            let refused = args.check(&Env::of(&[("ACESTEP_THREADS", wrong)]));
            assert!(refused.is_err_and(|e| e.to_string().contains("ACESTEP_THREADS")));
        }
    }

    #[test]
    fn the_language_model_may_have_its_own_device() {
        let args = DeviceArgs::default();
        let none = Env::default();
        for (flag, env) in [
            (None, &none),
            (Some("cpu"), &none),
            (Some("auto"), &Env::of(&[("ACESTEP_LM_DEVICE", "tpu")])),
            (None, &Env::of(&[("ACESTEP_LM_DEVICE", "CPU")])),
        ] {
            let opened = args.open_lm_with(flag, env);
            assert!(opened.is_ok_and(|device| device.is_none()), "{flag:?}");
        }
        let env = Env::of(&[("ACESTEP_LM_DEVICE", "tpu")]);
        let refused = args.open_lm_with(None, &env).err();
        assert!(refused.is_some_and(|e| e.to_string().contains("ACESTEP_LM_DEVICE tpu")));
        let refused = args.open_lm_with(Some("x"), &env).err();
        assert!(refused.is_some_and(|e| e.to_string().contains("--lm-device x")));
    }

    #[test]
    fn devices_are_named_as_the_environment_names_them() {
        for (text, kind) in [
            ("auto", DeviceKind::Auto),
            ("CPU", DeviceKind::Cpu),
            ("cuda:1", DeviceKind::Cuda(1)),
            ("mps", DeviceKind::Wgpu(0)),
            ("wgpu:2", DeviceKind::Wgpu(2)),
        ] {
            assert_eq!(text.parse(), Ok(kind));
        }
        assert!("tpu".parse::<DeviceKind>().is_err());
        assert!("cuda:x".parse::<DeviceKind>().is_err());
    }
}
