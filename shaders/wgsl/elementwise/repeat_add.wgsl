// out (N, P, C) = a (N, C) + b (P, C); t is P.
fn apply(i: u32) -> f32 {
    return a[p.oa + i / (p.t * p.c) * p.c + i % p.c] + b[p.ob + i % (p.t * p.c)];
}
