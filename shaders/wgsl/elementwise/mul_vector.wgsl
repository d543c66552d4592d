// a (..., C) b (C).
fn apply(i: u32) -> f32 {
    return a[p.oa + i] * b[p.ob + i % p.c];
}
