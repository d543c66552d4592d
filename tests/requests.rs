//! Pieces of requests that several tests start from.

use engine::song::{Guidance, Method, Sampling, Solver};

/// The plain deterministic flow in `steps` steps: no guidance, no corrections.
pub fn plain_sampling(steps: usize) -> Sampling {
    Sampling {
        steps,
        shift: 3.0,
        timesteps: None,
        method: Method::Ode,
        solver: Solver::Euler,
        guidance_scale: 1.0,
        guidance: Guidance::Apg,
        guidance_interval: (0.0, 1.0),
        dcw: None,
        velocity_norm_threshold: 0.0,
        velocity_ema_factor: 0.0,
    }
}
