// a sigmoid(a).
fn apply(i: u32) -> f32 {
    return silu_of(a[p.oa + i]);
}
