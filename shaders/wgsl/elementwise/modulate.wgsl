// a (B, T, C) (1 + b (B, C)) + c (B, C).
fn apply(i: u32) -> f32 {
    let at = i / (p.t * p.c) * p.c + i % p.c;
    return a[p.oa + i] * (1.0 + b[p.ob + at]) + c[p.oc + at];
}
