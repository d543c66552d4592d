// Grid values of codes (N): out (N, DIMS), 2 k_d / (L_d - 1) - 1. LEVELS is an array of DIMS u32.
@group(0) @binding(0) var<storage, read_write> codes: array<i32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;

struct Params {
    oc: u32,
    oo: u32,
    n: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = folded(group, groups) * 64u + local;
    if i >= p.n {
        return;
    }
    var levels = LEVELS;
    var code = u32(max(codes[p.oc + i], 0));
    for (var d = 0u; d < DIMS; d++) {
        let k = code % levels[d];
        out[p.oo + i * DIMS + d] = 2.0 * f32(k) / f32(levels[d] - 1u) - 1.0;
        code /= levels[d];
    }
}
