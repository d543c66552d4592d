// a (B, T, C) b (B, C).
fn apply(i: u32) -> f32 {
    return a[p.oa + i] * b[p.ob + i / (p.t * p.c) * p.c + i % p.c];
}
