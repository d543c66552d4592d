// cache (B, S, C) [b, at[b] + t] = rows (B, T, C), in place. Rows outside of the cache are left
// out. Consts: CACHE_BF16, ROWS_BF16 say how the two are stored. Halves of a word may belong to
// two threads, hence the atomics.
@group(0) @binding(0) var<storage, read_write> cache: array<atomic<u32>>;
@group(0) @binding(1) var<storage, read_write> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> at: array<i32>;

struct Params {
    oc: u32,
    ow: u32,
    oa: u32,
    n: u32,
    s: u32,
    t: u32,
    c: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = folded(group, groups) * 256u + local;
    if i >= p.n {
        return;
    }
    let b = i / (p.t * p.c);
    let row = at[p.oa + b] + i32(i / p.c % p.t);
    if row < 0 || row >= i32(p.s) {
        return;
    }
    let to = p.oc + (b * p.s + u32(row)) * p.c + i % p.c;
    let source = p.ow + i;
    if !CACHE_BF16 {
        atomicStore(&cache[to], rows[source]);
        return;
    }
    var bits: u32;
    if ROWS_BF16 {
        bits = (rows[source >> 1u] >> ((source & 1u) * 16u)) & 0xffffu;
    } else {
        bits = bf16_bits(bitcast<f32>(rows[source]));
    }
    let shift = (to & 1u) * 16u;
    atomicAnd(&cache[to >> 1u], ~(0xffffu << shift));
    atomicOr(&cache[to >> 1u], bits << shift);
}
