// a (B, T) != 0 ? b : c, both (B, T, C).
fn apply(i: u32) -> f32 {
    return select(c[p.oc + i], b[p.ob + i], a[p.oa + i / p.c] != 0.0);
}
