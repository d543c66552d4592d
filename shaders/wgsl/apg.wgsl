// Adaptive projected guidance of c, u, avg (B, T, C): out (2, B, T, C), the guided prediction and
// the new running average. One workgroup a channel of an item. Consts: AVERAGE, LIMIT switch the
// running average and the limit on.
@group(0) @binding(0) var<storage, read_write> c: array<f32>;
@group(0) @binding(1) var<storage, read_write> u: array<f32>;
@group(0) @binding(2) var<storage, read_write> average: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> scalars: array<f32>;

struct Params {
    oc: u32,
    ou: u32,
    oa: u32,
    oo: u32,
    b: u32,
    t: u32,
    c: u32,
    scale: u32,
    momentum: f32,
    limit: f32,
    eta: f32,
}
var<immediate> p: Params;

const THREADS: u32 = 64u;
var<workgroup> sums: array<vec3<f32>, THREADS>;

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
    let source = column / p.c * p.t * p.c + column % p.c;
    let all = p.b * p.t * p.c;
    var sum = vec3<f32>(); // <c, c>, <c, d>, <d, d>
    for (var t = local; t < p.t; t += THREADS) {
        let i = source + t * p.c;
        let x = c[p.oc + i];
        var d = x - u[p.ou + i];
        if AVERAGE {
            d += p.momentum * average[p.oa + i];
        }
        sum += vec3<f32>(x * x, x * d, d * d);
        out[p.oo + all + i] = d;
    }
    sums[local] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    let norm = sqrt(sums[0].z);
    var s = 1.0;
    if LIMIT {
        s = select(1.0, p.limit / norm, norm > p.limit);
    }
    let length = max(sqrt(sums[0].x), 1e-12);
    let along = (1.0 - p.eta) * s * (sums[0].y / length) / length;
    let g = scalars[p.scale] - 1.0;
    for (var t = local; t < p.t; t += THREADS) {
        let i = source + t * p.c;
        let x = c[p.oc + i];
        out[p.oo + i] = x + g * (s * out[p.oo + all + i] - along * x);
    }
}
