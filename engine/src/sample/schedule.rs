//! Times of the denoising steps. A schedule is a descending list of `n + 1` times: the time of
//! each step, then the time at which the last step arrives (0).
//!
//! Values are what the reference computes in f32, bit by bit, because the time embedding
//! multiplies them by 1000.

use crate::error::{Error, Result};

/// Most steps of a turbo model.
pub const TURBO_MAX_STEPS: usize = 20;
/// Steps of a turbo model when none are asked for.
pub const TURBO_STEPS: usize = 8;

/// Times a turbo model was distilled for; custom times snap to the nearest.
const TURBO_TIMES: [f64; 20] = [
    1.0,
    21.0 / 22.0,
    14.0 / 15.0,
    9.0 / 10.0,
    7.0 / 8.0,
    6.0 / 7.0,
    5.0 / 6.0,
    10.0 / 13.0,
    3.0 / 4.0,
    2.0 / 3.0,
    9.0 / 14.0,
    5.0 / 8.0,
    6.0 / 11.0,
    1.0 / 2.0,
    2.0 / 5.0,
    3.0 / 8.0,
    3.0 / 10.0,
    1.0 / 4.0,
    2.0 / 9.0,
    1.0 / 8.0,
];

/// `shift * t / (1 + (shift - 1) t)`: spends more steps near t = 1.
fn shifted(t: f64, shift: f64) -> f64 {
    shift * t / (1.0 + (shift - 1.0) * t)
}

/// The shift of a turbo model's own tables that is nearest to `shift`: 1, 2 or 3 (the smaller of
/// two equally near).
pub fn turbo_table_shift(shift: f64) -> f64 {
    nearest(&[1.0, 2.0, 3.0], shift)
}

/// Schedule of a turbo model.
///
/// `timesteps` wins when it has a value that is not a trailing zero: at most 20 are kept and each
/// snaps to the nearest time the model knows. Else `steps` (at most 20) with any `shift`. Else
/// the eight-step table of the nearest of the shifts 1, 2, 3.
///
/// # Errors
/// [`Error::Request`] when a time or the shift is not a usable number.
pub fn turbo(steps: Option<usize>, shift: f64, timesteps: Option<&[f64]>) -> Result<Vec<f32>> {
    check_shift(shift)?;
    if let Some(given) = timesteps {
        check_times(given)?;
        let kept = given
            .iter()
            .rposition(|&t| t != 0.0)
            .map_or(0, |last| last + 1);
        if kept > 0 {
            let snap = |&t: &f64| nearest(&TURBO_TIMES, t);
            return Ok(closed(given[..kept].iter().take(TURBO_MAX_STEPS).map(snap)));
        }
    }
    let (n, shift) = match steps {
        Some(n) if n > 0 => (n.min(TURBO_MAX_STEPS), shift),
        _ => (TURBO_STEPS, turbo_table_shift(shift)),
    };
    Ok(closed(
        (0..n).map(|i| shifted(1.0 - i as f64 / n as f64, shift)),
    ))
}

/// Schedule of a base or sft model: a straight line from 1 to 0 bent by `shift`, or `timesteps`
/// as given but for its end, which is one 0: without it the result would stay noisy, and a step
/// from 0 to 0 does nothing.
///
/// # Errors
/// [`Error::Request`] when there are no steps, or a time or the shift is not a usable number.
pub fn base(steps: usize, shift: f64, timesteps: Option<&[f64]>) -> Result<Vec<f32>> {
    check_shift(shift)?;
    if let Some(given) = timesteps {
        check_times(given)?;
        let mut times: Vec<f32> = given.iter().map(|&t| t as f32).collect();
        while times.last() == Some(&0.0) {
            times.pop();
        }
        if !times.is_empty() {
            times.push(0.0);
            return Ok(times);
        }
    }
    if steps == 0 {
        return Err(Error::Request(
            "the number of steps is 0; at least 1 is needed".into(),
        ));
    }
    let shift = shift as f32;
    Ok((0..=steps)
        .map(|i| linspace_down(i, steps))
        .map(|t| shift * t / (1.0 + (shift - 1.0) * t))
        .collect())
}

/// Element `i` of `n + 1` f32 numbers from 1 down to 0, counted from the nearer end as torch
/// does, so that the two halves round alike.
fn linspace_down(i: usize, n: usize) -> f32 {
    let step = -1.0 / n as f32;
    if i < n.div_ceil(2) {
        step.mul_add(i as f32, 1.0)
    } else {
        -step * (n - i) as f32
    }
}

/// What is left of a schedule when the start is not pure noise but a mix with the source: from
/// the time nearest to `1 - strength` (the first of two equally near). `strength` 0 leaves the
/// schedule alone.
pub fn after_cover_noise(times: &[f32], strength: f32) -> &[f32] {
    if strength <= 0.0 || times.len() < 2 {
        return times;
    }
    let target = 1.0 - f64::from(strength);
    let steps = &times[..times.len() - 1];
    &times[nearest_index(steps.iter().map(|&t| f64::from(t)), target)..]
}

/// Step from which the condition without a source is used: `trunc(n * strength)`.
pub fn cover_steps(n: usize, strength: f64) -> usize {
    (n as f64 * strength.clamp(0.0, 1.0)) as usize
}

fn closed(times: impl Iterator<Item = f64>) -> Vec<f32> {
    times.map(|t| t as f32).chain([0.0]).collect()
}

fn nearest(of: &[f64], to: f64) -> f64 {
    of[nearest_index(of.iter().copied(), to)]
}

/// Position of the value nearest to `to`; the first of equals, 0 for an empty list.
fn nearest_index(of: impl Iterator<Item = f64>, to: f64) -> usize {
    let mut best = (f64::INFINITY, 0);
    for (i, t) in of.enumerate() {
        let distance = (t - to).abs();
        if distance < best.0 {
            best = (distance, i);
        }
    }
    best.1
}

fn check_shift(shift: f64) -> Result<()> {
    if shift.is_finite() && shift > 0.0 {
        return Ok(());
    }
    Err(Error::Request(format!(
        "shift is {shift}; it must be a number above 0 (usually 1 to 5)"
    )))
}

fn check_times(times: &[f64]) -> Result<()> {
    match times.iter().find(|t| !(0.0..=1.0).contains(*t)) {
        None => Ok(()),
        Some(t) => Err(Error::Request(format!(
            "timesteps holds {t}; each must be in 0 to 1"
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn numbers(v: &Value) -> Vec<f64> {
        v.as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_f64().unwrap())
            .collect()
    }

    fn recorded() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../tests/goldens/stages/schedules.json"
        );
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn singles(v: &Value) -> Vec<f32> {
        numbers(v).iter().map(|&t| t as f32).collect()
    }

    #[test]
    fn turbo_schedules_are_those_recorded() {
        let all = recorded();
        let cases = all["turbo"].as_array().unwrap();
        assert!(cases.len() > 40);
        for case in cases {
            let p = &case["params"];
            let steps = p["infer_steps"].as_u64().map(|n| n as usize);
            let given = p.get("timesteps").map(numbers);
            let times = turbo(steps, p["shift"].as_f64().unwrap_or(3.0), given.as_deref()).unwrap();
            let strength = p["cover_noise_strength"].as_f64().unwrap_or(0.0) as f32;
            let times = after_cover_noise(&times, strength);
            let (last, starts) = times.split_last().unwrap();
            assert_eq!(starts, singles(&case["t_f32"]), "{p}");
            assert_eq!(*last, 0.0);
        }
    }

    #[test]
    fn base_schedules_are_those_recorded() {
        let all = recorded();
        let cases = all["base"].as_array().unwrap();
        assert!(cases.len() > 30);
        for case in cases {
            let p = &case["params"];
            let steps = p["infer_steps"].as_u64().unwrap() as usize;
            let times = base(steps, p["shift"].as_f64().unwrap(), None).unwrap();
            assert_eq!(times, singles(&case["t_f32"]), "{p}");
        }
    }

    #[test]
    fn custom_base_times_are_used_as_given_and_closed() {
        assert_eq!(base(50, 1.0, Some(&[0.97, 0.4])).unwrap(), [0.97, 0.4, 0.0]);
        assert_eq!(base(50, 1.0, Some(&[0.97, 0.0])).unwrap(), [0.97, 0.0]);
        assert_eq!(base(50, 1.0, Some(&[0.9, 0.0, 0.0])).unwrap(), [0.9, 0.0]);
        for none in [&[][..], &[0.0], &[0.0, 0.0]] {
            assert_eq!(base(2, 1.0, Some(none)).unwrap(), [1.0, 0.5, 0.0]);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(turbo(None, f64::NAN, None).is_err());
        assert!(turbo(None, 0.0, None).is_err());
        assert!(turbo(None, 1.0, Some(&[0.5, f64::NAN])).is_err());
        assert!(base(4, 1.0, Some(&[1.5])).is_err());
        assert!(base(0, 1.0, None).is_err());
    }

    #[test]
    fn cover_steps_truncate() {
        assert_eq!(cover_steps(8, 0.5), 4);
        assert_eq!(cover_steps(8, 0.99), 7);
        assert_eq!(cover_steps(8, 1.0), 8);
        assert_eq!(cover_steps(8, -1.0), 0);
    }

    proptest! {
        #[test]
        fn schedules_descend_from_one_to_zero(steps in 1usize..200, shift in 1f64..10.0) {
            for times in [turbo(Some(steps), shift, None).unwrap(), base(steps, shift, None).unwrap()] {
                prop_assert_eq!(times[0], 1.0);
                prop_assert_eq!(*times.last().unwrap(), 0.0);
                prop_assert!(times.windows(2).all(|w| w[0] > w[1]));
            }
        }
    }
}
