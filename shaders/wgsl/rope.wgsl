// Rotary embedding, halves layout, of x (B, T, H, D), one workgroup a head of a row; the output
// may lie over x. cos and sin are (T, D/2), or (B, T, D/2) where `per_item` is T instead of 0.
// Const NORM: the root-mean-square norm over D with weight (D) first.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> cosine: array<f32>;
@group(0) @binding(3) var<storage, read_write> sine: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const THREADS: u32 = 32u;
var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = folded(group, groups);
    if head >= p.heads {
        return;
    }
    let source = p.ox + head * p.d;
    var r = 1.0;
    if NORM {
        var sum = 0.0;
        for (var i = local; i < p.d; i += THREADS) {
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
        r = 1.0 / sqrt(sums[0] / f32(p.d) + p.eps);
    }
    let row = head / p.h;
    let angles = (row / p.t * p.per_item + row % p.t) * (p.d / 2u);
    for (var k = local; k < p.d / 2u; k += THREADS) {
        let other = k + p.d / 2u;
        var a = x[source + k];
        var b = x[source + other];
        if NORM {
            a = a * r * weight[p.ow + k];
            b = b * r * weight[p.ow + other];
        }
        let c = cosine[p.oc + angles + k];
        let s = sine[p.os + angles + k];
        out[p.oo + head * p.d + k] = a * c - b * s;
        out[p.oo + head * p.d + other] = b * c + a * s;
    }
}
