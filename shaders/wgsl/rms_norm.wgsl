// x rsqrt(mean_c x^2 + eps) w of rows (R, C), one workgroup a row; the output may lie over x.
// Const MODULATE: then (1 + scale (B, C)) times that + shift (B, C), t rows an item.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> shift: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const THREADS: u32 = 64u;
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = folded(group, groups);
    if row >= p.rows {
        return;
    }
    let source = p.ox + row * p.c;
    var sum = 0.0;
    for (var i = local; i < p.c; i += THREADS) {
        sum += x[source + i] * x[source + i];
    }
    sums[local] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    let r = 1.0 / sqrt(sums[0] / f32(p.c) + p.eps);
    let item = row / p.t * p.c;
    for (var i = local; i < p.c; i += THREADS) {
        var y = x[source + i] * r * weight[p.ow + i];
        if MODULATE {
            y = y * (1.0 + scale[p.os + item + i]) + shift[p.oh + item + i];
        }
        out[p.oo + row * p.c + i] = y;
    }
}
