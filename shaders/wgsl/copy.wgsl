// Runs of words from one place to another: run r of `run` words goes from
// x[in_start + r in_stride ..] to out[out_start + r out_stride ..].
//
// Consts: ZERO writes zeros instead; SELECT adds `step` times a run-time scalar (rounded to the
// nearest integer, halves up, clamped to 0 .. count - 1) to the start of the input.
@group(0) @binding(0) var<storage, read_write> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@group(0) @binding(2) var<storage, read_write> scalars: array<f32>;

struct Params {
    ox: u32,
    oo: u32,
    total: u32,
    run: u32,
    in_start: u32,
    in_stride: u32,
    out_start: u32,
    out_stride: u32,
    scalar: u32,
    step: u32,
    count: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = folded(group, groups) * 256u + local;
    if i >= p.total {
        return;
    }
    let r = i / p.run;
    let j = i - r * p.run;
    var start = p.ox + p.in_start;
    if SELECT {
        let last = f32(p.count - 1u);
        start += u32(clamp(floor(scalars[p.scalar] + 0.5), 0.0, last)) * p.step;
    }
    let to = p.oo + p.out_start + r * p.out_stride + j;
    if ZERO {
        out[to] = 0u;
    } else {
        out[to] = x[start + r * p.in_stride + j];
    }
}
