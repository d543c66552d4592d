//! Vector mathematics on rows: one plain body per function, compiled once per level.
//!
//! The bodies are loops over arrays of lanes, which the compiler turns into vector code of the
//! width that the level's instructions allow; no intrinsics are needed.

/// Lanes of the reductions: sums have the same order at every level.
const LANES: usize = 32;

/// Compiles `body` for every level and dispatches. `body` takes a `const FMA: bool` that says
/// whether `mul_add` is one instruction.
macro_rules! leveled {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$doc])*
        #[inline]
        $vis fn $name(level: $crate::backend::cpu::level::Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                use $crate::backend::cpu::level::Level;
                match level {
                    Level::Portable => {}
                    // SAFETY: holding the level proves that the processor has the instructions.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx512 | Level::Avx512Bf16 => return unsafe { avx512($($arg),*) },
                }
            }
            // aarch64 has fused multiply-add in its base instruction set.
            let _ = level;
            $body::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}
pub(crate) use leveled;

/// `a b + c`, fused where that is one instruction.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Adding and subtracting this rounds to the nearest integer, for `|x| < 2^22`.
const ROUND: f32 = 12_582_912.0;

/// `exp(x)` to 1e-7 relative for `-87 <= x <= 88`; smaller arguments give about 1e-38, larger
/// ones about 1.6e38.
///
/// Cody and Waite's reduction `x = n ln 2 + r` in two terms, then a degree 6 polynomial whose
/// free coefficients minimise the largest relative error (3e-9) on `|r| <= ln(2) / 2`.
#[inline(always)]
pub(crate) fn exp_lane<const FMA: bool>(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -0.693_359_4, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.381_446_7e-3;
    p = fma::<FMA>(p, r, 8.368_781e-3);
    p = fma::<FMA>(p, r, 4.166_839_3e-2);
    p = fma::<FMA>(p, r, 1.666_652e-1);
    p = fma::<FMA>(p, r, 4.999_999_4e-1);
    let e = fma::<FMA>(p, r * r, r) + 1.0;
    // The low bits of the shifted value are n; moved into the exponent they multiply by 2^n.
    let scale = shifted.to_bits().wrapping_add(127) << 23;
    e * f32::from_bits(scale)
}

/// `x sigmoid(x)`.
#[inline(always)]
pub(crate) fn silu_lane<const FMA: bool>(x: f32) -> f32 {
    x / (1.0 + exp_lane::<FMA>(-x))
}

/// `sin(z)^2` to 3.5e-7 absolute for `|z| < 10^4`, beyond the rounding of `z` itself.
///
/// The square has period pi and is even: `z = n pi + r` with pi in three terms, each short
/// enough that its product with n is exact, then an even polynomial in `r` (6e-9 absolute).
#[inline(always)]
pub(crate) fn sin_squared_lane<const FMA: bool>(z: f32) -> f32 {
    let n = fma::<FMA>(z, std::f32::consts::FRAC_1_PI, ROUND) - ROUND;
    let r = fma::<FMA>(n, -3.140_625, z);
    let r = fma::<FMA>(n, -9.675_026e-4, r);
    let r = fma::<FMA>(n, -1.509_958e-7, r);
    let u = r * r;
    let mut p = -3.540_782_2e-6;
    p = fma::<FMA>(p, u, 1.387_164_1e-4);
    p = fma::<FMA>(p, u, -3.170_765e-3);
    p = fma::<FMA>(p, u, 4.444_129_4e-2);
    p = fma::<FMA>(p, u, -3.333_321_5e-1);
    p = fma::<FMA>(p, u, 9.999_998e-1);
    p * u
}

#[inline(always)]
fn scale_body<const FMA: bool>(row: &mut [f32], factor: f32) {
    row.iter_mut().for_each(|x| *x *= factor);
}

#[inline(always)]
fn silu_body<const FMA: bool>(row: &mut [f32]) {
    for x in row {
        *x = silu_lane::<FMA>(*x);
    }
}

#[inline(always)]
fn snake_body<const FMA: bool>(x: &[f32], alpha: &[f32], inv_beta: &[f32], out: &mut [f32]) {
    for (((o, &x), &a), &b) in out.iter_mut().zip(x).zip(alpha).zip(inv_beta) {
        *o = fma::<FMA>(sin_squared_lane::<FMA>(a * x), b, x);
    }
}

#[inline(always)]
fn snake_in_place_body<const FMA: bool>(row: &mut [f32], alpha: &[f32], inv_beta: &[f32]) {
    for ((x, &a), &b) in row.iter_mut().zip(alpha).zip(inv_beta) {
        *x = fma::<FMA>(sin_squared_lane::<FMA>(a * *x), b, *x);
    }
}

#[inline(always)]
fn sum_squares_body<const FMA: bool>(x: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for (a, &v) in acc.iter_mut().zip(block) {
            *a = fma::<FMA>(v, v, *a);
        }
    }
    for (a, &v) in acc.iter_mut().zip(rest) {
        *a = fma::<FMA>(v, v, *a);
    }
    fold(acc, |a, b| a + b)
}

#[inline(always)]
fn dot_body<const FMA: bool>(x: &[f32], y: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (x_rest, y_rest) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        for ((a, &x), &y) in acc.iter_mut().zip(x).zip(y) {
            *a = fma::<FMA>(x, y, *a);
        }
    }
    for ((a, &x), &y) in acc.iter_mut().zip(x_rest).zip(y_rest) {
        *a = fma::<FMA>(x, y, *a);
    }
    fold(acc, |a, b| a + b)
}

/// The lanes brought together by `f`, halves onto halves. Their number is a power of two.
#[inline(always)]
pub(crate) fn fold<const N: usize>(mut acc: [f32; N], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = N / 2;
    while n > 0 {
        for i in 0..n {
            acc[i] = f(acc[i], acc[i + n]);
        }
        n /= 2;
    }
    acc[0]
}

#[inline(always)]
fn rms_norm_body<const FMA: bool>(row: &mut [f32], w: &[f32], eps: f32) {
    let r = rms_factor(sum_squares_body::<FMA>(row), row.len(), eps);
    for (x, &w) in row.iter_mut().zip(w) {
        *x = *x * r * w;
    }
}

#[inline(always)]
fn rms_norm_modulate_body<const FMA: bool>(
    row: &mut [f32],
    w: &[f32],
    eps: f32,
    scale: &[f32],
    shift: &[f32],
) {
    let r = rms_factor(sum_squares_body::<FMA>(row), row.len(), eps);
    for (((x, &w), &scale), &shift) in row.iter_mut().zip(w).zip(scale).zip(shift) {
        *x = fma::<FMA>(*x * r * w, 1.0 + scale, shift);
    }
}

/// `rsqrt(mean + eps)`.
#[inline(always)]
fn rms_factor(sum_squares: f32, n: usize, eps: f32) -> f32 {
    1.0 / (sum_squares / n as f32 + eps).sqrt()
}

#[inline(always)]
fn rotate_body<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (lo, hi) = head.split_at_mut(cos.len());
    for (((a, b), &c), &s) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
        let (x, y) = (*a, *b);
        *a = fma::<FMA>(x, c, -(y * s));
        *b = fma::<FMA>(y, c, x * s);
    }
}

leveled! {
    /// `x sigmoid(x)` of every element in place.
    pub fn silu_row(row: &mut [f32]) = silu_body
}
leveled! {
    /// `out = x + sin(alpha x)^2 inv_beta` per channel. `alpha` is already `exp(alpha)`,
    /// `inv_beta` already `1 / (exp(beta) + 1e-9)`. All of equal length.
    pub fn snake_row(x: &[f32], alpha: &[f32], inv_beta: &[f32], out: &mut [f32]) = snake_body
}
leveled! {
    /// [`snake_row`] over its own input.
    pub fn snake_row_in_place(row: &mut [f32], alpha: &[f32], inv_beta: &[f32]) = snake_in_place_body
}
leveled! {
    /// Every element times a factor, in place.
    pub fn scale_row(row: &mut [f32], factor: f32) = scale_body
}
leveled! {
    /// Inner product.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 = dot_body
}
leveled! {
    /// `x rsqrt(mean x^2 + eps) w` in place.
    pub fn rms_norm_row(row: &mut [f32], w: &[f32], eps: f32) = rms_norm_body
}
leveled! {
    /// `rms_norm(x) (1 + scale) + shift` in place.
    pub fn rms_norm_modulate_row(row: &mut [f32], w: &[f32], eps: f32, scale: &[f32], shift: &[f32]) = rms_norm_modulate_body
}
leveled! {
    /// Rotary embedding of one head in place, halves layout; `cos` and `sin` have half its length.
    pub fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32]) = rotate_body
}

/// The two factors of Snake as [`snake_row`] wants them: `exp(alpha)` and
/// `1 / (exp(beta) + 1e-9)`.
pub fn snake_factors(alpha: f32, beta: f32) -> (f32, f32) {
    (alpha.exp(), 1.0 / (beta.exp() + 1e-9))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Level;

    fn grid(lo: f32, hi: f32, n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| lo + (hi - lo) * i as f32 / (n - 1) as f32)
            .collect()
    }

    #[inline(always)]
    fn exp_body<const FMA: bool>(row: &mut [f32]) {
        row.iter_mut().for_each(|x| *x = exp_lane::<FMA>(*x));
    }

    leveled! {
        fn exp_row(row: &mut [f32]) = exp_body
    }

    #[test]
    fn exp_is_accurate_at_every_level() {
        for &level in Level::available() {
            let xs = grid(-86.9, 87.9, 200_001);
            let mut got = xs.clone();
            exp_row(level, &mut got);
            for (x, y) in xs.iter().zip(&got) {
                let want = f64::from(*x).exp();
                assert!(
                    (f64::from(*y) / want - 1.0).abs() < 1.5e-7,
                    "{level}: exp({x}) = {y}"
                );
            }
            let mut ends = [-1e30f32, -88.0, 1e30, 0.0];
            exp_row(level, &mut ends);
            assert!(ends[0] < 1e-37 && ends[1] < 1e-37 && ends[2] > 1e38 && ends[3] == 1.0);
        }
    }

    #[test]
    fn silu_is_accurate_at_every_level() {
        for &level in Level::available() {
            let xs = grid(-100.0, 100.0, 100_001);
            let mut got = xs.clone();
            silu_row(level, &mut got);
            for (x, y) in xs.iter().zip(&got) {
                let x = f64::from(*x);
                let want = x / (1.0 + (-x).exp());
                let limit = 3e-7 * want.abs() + 1e-35;
                assert!(
                    (f64::from(*y) - want).abs() < limit,
                    "{level}: silu({x}) = {y}"
                );
            }
        }
    }

    #[test]
    fn snake_is_accurate_at_every_level() {
        for &level in Level::available() {
            let xs = grid(-1000.0, 1000.0, 300_001);
            let ones = vec![1.0; xs.len()];
            let mut got = vec![0.0; xs.len()];
            snake_row(level, &xs, &ones, &ones, &mut got);
            for (x, y) in xs.iter().zip(&got) {
                let x = f64::from(*x);
                let want = x + x.sin().powi(2);
                let limit = 1.5e-7 + 1.2e-7 * want.abs();
                assert!(
                    (f64::from(*y) - want).abs() < limit,
                    "{level}: snake({x}) = {y}"
                );
            }
            let mut again = xs.clone();
            snake_row_in_place(level, &mut again, &ones, &ones);
            assert_eq!(again, got);
        }
    }

    #[test]
    fn sin_squared_keeps_its_absolute_accuracy_far_out() {
        let mut worst = [0f64; 2];
        for z in grid(-9000.0, 9000.0, 1_000_001) {
            let want = f64::from(z).sin().powi(2);
            for (w, got) in worst
                .iter_mut()
                .zip([sin_squared_lane::<true>(z), sin_squared_lane::<false>(z)])
            {
                *w = w.max((f64::from(got) - want).abs());
            }
        }
        assert!(worst.iter().all(|w| *w < 3.5e-7), "{worst:?}");
    }

    #[test]
    fn sums_agree_with_double_precision_on_odd_lengths() {
        for &level in Level::available() {
            for n in [1, 2, 31, 32, 33, 127, 1000] {
                let x: Vec<f32> = (0..n)
                    .map(|i| ((i * 37 % 101) as f32 - 50.0) / 17.0)
                    .collect();
                let y: Vec<f32> = (0..n)
                    .map(|i| ((i * 53 % 97) as f32 - 40.0) / 13.0)
                    .collect();
                let want: f64 = x
                    .iter()
                    .zip(&y)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum();
                let size: f64 = x
                    .iter()
                    .zip(&y)
                    .map(|(a, b)| (f64::from(*a) * f64::from(*b)).abs())
                    .sum();
                assert!((f64::from(dot(level, &x, &y)) - want).abs() <= 3e-7 * size);
            }
        }
    }
}
