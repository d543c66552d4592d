//! The flags that choose where and how to compute, shared by every subcommand that computes.

use clap::ValueEnum;

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
    pub fn math(self) -> engine::program::Math {
        match self {
            DtypeFlag::F32 => engine::program::Math::F32,
            DtypeFlag::Bf16 => engine::program::Math::Bf16,
        }
    }
}

/// Flags that choose the device.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DeviceArgs {
    /// Device to compute on: auto, cpu
    #[arg(long, value_name = "NAME", env = "ACESTEP_DEVICE")]
    pub backend: Option<String>,
    /// Arithmetic of the products [default: what the hardware has, f32 for verify]
    #[arg(long, value_name = "DTYPE")]
    pub dtype: Option<DtypeFlag>,
    /// Threads of the CPU backend [default: all cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZeroUsize>,
}
