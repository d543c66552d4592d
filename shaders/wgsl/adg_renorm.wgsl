// The second half of angle-based guidance with renormalisation: the clean sample in `out` is
// rescaled, per channel of an item, to the norm over time of the conditional one, and becomes a
// velocity. One workgroup a channel.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> c: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read_write> scalars: array<f32>;

struct Params {
    ox: u32,
    oc: u32,
    oo: u32,
    b: u32,
    t: u32,
    c: u32,
    time: u32,
}
var<immediate> p: Params;

const THREADS: u32 = 64u;
var<workgroup> sums: array<vec2<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = folded(group, groups);
    if column >= p.b * p.c {
        return;
    }
    let time = scalars[p.time];
    let source = column / p.c * p.t * p.c + column % p.c;
    var sum = vec2<f32>();
    for (var t = local; t < p.t; t += THREADS) {
        let i = source + t * p.c;
        let a = x[p.ox + i] - time * c[p.oc + i];
        let clean = out[p.oo + i];
        sum += vec2<f32>(a * a, clean * clean);
    }
    sums[local] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    let ratio = select(1.0, sqrt(sums[0].x / max(sums[0].y, 1e-30)), sums[0].y > 0.0);
    for (var t = local; t < p.t; t += THREADS) {
        let i = source + t * p.c;
        out[p.oo + i] = (x[p.ox + i] - out[p.oo + i] * ratio) / time;
    }
}
