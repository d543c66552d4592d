// v min(1, limit (|x| + 1e-10) / (|v| + 1e-10)), norms over the n elements of an item; one
// workgroup an item. The output may lie over v.
@group(0) @binding(0) var<storage, read_write> v: array<f32>;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

struct Params {
    ov: u32,
    ox: u32,
    oo: u32,
    n: u32,
    limit: f32,
}
var<immediate> p: Params;

const THREADS: u32 = 256u;
var<workgroup> sums: array<vec2<f32>, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let source = group.x * p.n;
    var sum = vec2<f32>();
    for (var i = source + local; i < source + p.n; i += THREADS) {
        sum += vec2<f32>(v[p.ov + i] * v[p.ov + i], x[p.ox + i] * x[p.ox + i]);
    }
    sums[local] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    let norms = sqrt(sums[0]) + vec2<f32>(1e-10);
    let ratio = min(1.0, p.limit * norms.y / norms.x);
    for (var i = source + local; i < source + p.n; i += THREADS) {
        out[p.oo + i] = v[p.ov + i] * ratio;
    }
}
