// out (N, C) = [cos(1000 a w_j) | sin(1000 a w_j)], w_j = exp(-ln(10000) j / (C / 2)), a (N).
fn apply(i: u32) -> f32 {
    let half = p.c / 2u;
    let j = i % p.c;
    let sine = j >= half;
    let w = exp_of(-9.210340371976184 * f32(select(j, j - half, sine)) / f32(half));
    let angle = sin_cos_of(1000.0 * a[p.oa + i / p.c] * w);
    return select(angle.y, angle.x, sine);
}
