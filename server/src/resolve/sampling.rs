//! Defaults and limits of the denoising loop per model family.

use super::checks::Checks;
use super::{Caller, ModelFacts};
use crate::fields::{RawRequest, Refusal};
use engine::program::{Dcw, DcwMode};
use engine::sample::schedule::turbo_table_shift;
use engine::sample::wavelet;
use engine::song::{Guidance, Method, Sampling, Solver};

/// Steps and shift that suit a family, for callers that do not say (upstream's model pages).
struct Family {
    steps: i64,
    shift: f64,
    max_steps: i64,
}

const TURBO: Family = Family {
    steps: 8,
    shift: 3.0,
    max_steps: 20,
};
const BASE: Family = Family {
    steps: 50,
    shift: 1.0,
    max_steps: 200,
};

/// Decides the parameters of the denoising loop.
pub fn resolve(
    raw: &RawRequest,
    model: &ModelFacts,
    checks: &mut Checks,
) -> Result<Sampling, Refusal> {
    let family = if model.is_turbo { TURBO } else { BASE };
    let (steps, shift) = match checks.caller {
        Caller::Http => (raw.inference_steps(), raw.shift()),
        Caller::CommandLine => (
            raw.inference_steps.unwrap_or(family.steps),
            raw.shift.unwrap_or(family.shift),
        ),
    };
    let start = checks.clamp("cfg_interval_start", raw.cfg_interval_start())?;
    let end = checks.clamp("cfg_interval_end", raw.cfg_interval_end())?;
    if end < start {
        return Err(Refusal(format!(
            "cfg_interval_end ({end}) is before cfg_interval_start ({start}); the end must not \
             be smaller than the start"
        )));
    }
    Ok(Sampling {
        steps: checks.clamp_to(
            "inference_steps",
            steps as f64,
            1.0,
            family.max_steps as f64,
        )? as usize,
        shift: shift_of(shift, model, checks)?,
        timesteps: timesteps(raw, model, checks)?,
        method: method(raw, checks)?,
        solver: solver(raw, checks)?,
        guidance_scale: guidance_scale(raw, model, checks)?,
        guidance: if raw.use_adg() {
            Guidance::Adg
        } else {
            Guidance::Apg
        },
        guidance_interval: (start as f32, end as f32),
        dcw: dcw(raw, checks)?,
        velocity_norm_threshold: checks
            .clamp("velocity_norm_threshold", raw.velocity_norm_threshold())?
            as f32,
        velocity_ema_factor: checks.clamp("velocity_ema_factor", raw.velocity_ema_factor())? as f32,
    })
}

/// Turbo models know the schedules of the shifts 1, 2 and 3; the nearest is taken, as upstream
/// does.
fn shift_of(shift: f64, model: &ModelFacts, checks: &mut Checks) -> Result<f64, Refusal> {
    let shift = checks.clamp("shift", shift)?;
    if !model.is_turbo {
        return Ok(shift);
    }
    let nearest = turbo_table_shift(shift);
    if nearest != shift {
        checks.notes.push(format!(
            "shift {shift} was taken as {nearest}: turbo models know 1, 2 and 3"
        ));
    }
    Ok(nearest)
}

/// At most 1 means no guidance; turbo models have none.
fn guidance_scale(
    raw: &RawRequest,
    model: &ModelFacts,
    checks: &mut Checks,
) -> Result<f32, Refusal> {
    let scale = checks.clamp_to("guidance_scale", raw.guidance_scale(), 0.0, 30.0)?;
    Ok(if model.is_turbo {
        1.0
    } else {
        scale.max(1.0) as f32
    })
}

fn method(raw: &RawRequest, checks: &mut Checks) -> Result<Method, Refusal> {
    match raw.infer_method().trim().to_lowercase().as_str() {
        "ode" => Ok(Method::Ode),
        "sde" => Ok(Method::Sde),
        other => {
            checks.fall_back("infer_method", other, "ode", "ode or sde")?;
            Ok(Method::Ode)
        }
    }
}

fn solver(raw: &RawRequest, checks: &mut Checks) -> Result<Solver, Refusal> {
    match raw.sampler_mode().trim().to_lowercase().as_str() {
        "euler" => Ok(Solver::Euler),
        "heun" => Ok(Solver::Heun),
        other => {
            checks.fall_back("sampler_mode", other, "euler", "euler or heun")?;
            Ok(Solver::Euler)
        }
    }
}

/// Times in [0, 1] that never rise, at least one above 0. Upstream ignores a list it cannot read;
/// one that could not be sampled is ignored alike.
fn timesteps(
    raw: &RawRequest,
    model: &ModelFacts,
    checks: &mut Checks,
) -> Result<Option<Vec<f64>>, Refusal> {
    let Some(text) = raw.timesteps() else {
        return Ok(None);
    };
    let text = text.trim().trim_start_matches('[').trim_end_matches(']');
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let times: Option<Vec<f64>> = items.map(|item| item.parse().ok()).collect();
    let family = if model.is_turbo { TURBO } else { BASE };
    // On the command line a time given twice is a slip, and so is a list without a time.
    let strict = checks.caller == Caller::CommandLine;
    let falls = |pair: &[f64]| pair[0] > pair[1] || (!strict && pair[0] == pair[1]);
    match times {
        Some(times) if times.is_empty() && !strict => Ok(None),
        Some(times)
            if !times.is_empty()
                && times.iter().all(|t| (0.0..=1.0).contains(t))
                && times.windows(2).all(falls)
                && times[0] > 0.0
                && times.len() <= family.max_steps as usize + 1 =>
        {
            Ok(Some(times))
        }
        _ => {
            let allowed = format!(
                "at most {} descending numbers between 1 and 0 separated by commas",
                family.max_steps
            );
            checks.fall_back("timesteps", text, "not given", &allowed)?;
            Ok(None)
        }
    }
}

/// The wavelet correction: on unless switched off.
fn dcw(raw: &RawRequest, checks: &mut Checks) -> Result<Option<Dcw>, Refusal> {
    if !raw.dcw_enabled() {
        return Ok(None);
    }
    let mode = match raw.dcw_mode().trim().to_lowercase().as_str() {
        "double" => DcwMode::Double,
        "low" => DcwMode::Low,
        "high" => DcwMode::High,
        "pix" => DcwMode::Pixel,
        other => {
            checks.fall_back("dcw_mode", other, "double", "double, low, high or pix")?;
            DcwMode::Double
        }
    };
    let wavelet = raw.dcw_wavelet().trim().to_lowercase();
    let filter = match wavelet::filter(&wavelet) {
        Some(filter) => filter,
        None => {
            let names = format!("one of {}", wavelet::NAMES.join(", "));
            checks.fall_back("dcw_wavelet", &wavelet, "haar", &names)?;
            vec![std::f32::consts::FRAC_1_SQRT_2; 2]
        }
    };
    Ok(Some(Dcw {
        mode,
        low: checks.clamp("dcw_scaler", raw.dcw_scaler())? as f32,
        high: checks.clamp("dcw_high_scaler", raw.dcw_high_scaler())? as f32,
        filter,
    }))
}
