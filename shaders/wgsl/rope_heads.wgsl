// Rotary embedding, halves layout, of x (B, T, H, 128), 16 threads a head, which is read once:
// offsets are multiples of 4; the output may lie over x. cos and sin are (T, 64), or (B, T, 64)
// where `per_item` is T instead of 0.
// Consts: THREADS; NORM: the root-mean-square norm over a head with weight (128) first.
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> cosine: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> sine: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = folded(group, groups) * (THREADS / 16u) + local / 16u;
    // Threads behind the last head take part in sums.
    let there = head < p.heads;
    let source = p.ox / 4u + select(0u, head, there) * 32u;
    let k = local % 16u;
    var a = x[source + k];
    var b = x[source + 16u + k];
    if NORM {
        let squares = sum16(local, a * a + b * b);
        let sum = (squares.x + squares.y) + (squares.z + squares.w);
        let r = 1.0 / sqrt(sum / 128.0 + p.eps);
        a = a * r * weight[p.ow / 4u + k];
        b = b * r * weight[p.ow / 4u + 16u + k];
    }
    if !there {
        return;
    }
    let row = head / p.h;
    let angles = (row / p.t * p.per_item + row % p.t) * 16u + k;
    let c = cosine[p.oc / 4u + angles];
    let s = sine[p.os / 4u + angles];
    let to = p.oo / 4u + head * 32u + k;
    out[to] = a * c - b * s;
    out[to + 16u] = b * c + a * s;
}
