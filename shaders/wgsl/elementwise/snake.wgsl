// a (B, T, C) + sin(exp(b) a)^2 / (exp(c) + 1e-9), b and c (C).
fn apply(i: u32) -> f32 {
    let x = a[p.oa + i];
    let at = i % p.c;
    return x + sin_squared_of(exp_of(b[p.ob + at]) * x) / (exp_of(c[p.oc + at]) + 1e-9);
}
