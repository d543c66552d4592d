// Finite scalar quantisation of x (N, DIMS): codes (N). LEVELS is an array of DIMS u32.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<i32>;

struct Params {
    ox: u32,
    oo: u32,
    n: u32,
}
var<immediate> p: Params;

fn tanh_of(x: f32) -> f32 {
    return 1.0 - 2.0 / (exp_of(2.0 * x) + 1.0);
}

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
    var code = 0;
    var basis = 1;
    for (var d = 0u; d < DIMS; d++) {
        let top = f32(levels[d] - 1u);
        let c = 1.0 + 1.0 / top;
        let z = clamp(c * tanh_of(x[p.ox + i * DIMS + d] / c), -1.0, 1.0);
        code += i32(floor(top * (z + 1.0) / 2.0 + 0.5)) * basis;
        basis *= i32(levels[d]);
    }
    out[p.oo + i] = code;
}
