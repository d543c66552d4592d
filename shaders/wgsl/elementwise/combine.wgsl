// s_a a + s_b b with run-time factors.
fn apply(i: u32) -> f32 {
    return scalars[p.sa] * a[p.oa + i] + scalars[p.sb] * b[p.ob + i];
}
