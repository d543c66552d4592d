// Adds up the shares of a product whose summands were split: out (R, C) = sum over s of
// parts[s, R, C] (+ bias (C) with const BIAS), in the order of s. Const SPLITS.
@group(0) @binding(0) var<storage, read_write> parts: array<f32>;
@group(0) @binding(1) var<storage, read_write> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

struct Params {
    ob: u32,
    oo: u32,
    n: u32,
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
    var y = parts[i];
    for (var s = 1u; s < SPLITS; s++) {
        y += parts[s * p.n + i];
    }
    if BIAS {
        y += bias[p.ob + i % p.c];
    }
    out[p.oo + i] = y;
}
