// Rows of a table of any float dtype: out (N, C) = table[ids], for ids within the block of
// `rows` rows from `row0` on that is bound. Ids outside of the table take its nearest end.
@group(0) @binding(0) var<storage, read_write> ids: array<i32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

struct Params {
    oi: u32,
    ow: u32,
    oo: u32,
    n: u32,
    c: u32,
    row0: u32,
    rows: u32,
    all: u32,
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
    let id = u32(clamp(ids[p.oi + i / p.c], 0, i32(p.all) - 1));
    if id >= p.row0 && id - p.row0 < p.rows {
        let at = p.ow + (id - p.row0) * p.c + i % p.c;
        out[p.oo + i] = decode1(w[word_at(at)], at);
    }
}
