// x rsqrt(mean_c x^2 + eps) w of rows (R, C), one workgroup a row, which is read once: C is a
// multiple of 4 and at most 16 THREADS, offsets are multiples of 4; the output may lie over x.
// Consts: THREADS; MODULATE: then (1 + scale (B, C)) times that + shift (B, C), t rows an item.
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> scale: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> shift: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

fn part(row: u32, i: u32) -> vec4<f32> {
    if i < p.c / 4u {
        return x[(p.ox + row * p.c) / 4u + i];
    }
    return vec4<f32>();
}

fn put(row: u32, i: u32, normed: vec4<f32>) {
    if i >= p.c / 4u {
        return;
    }
    var y = normed * weight[p.ow / 4u + i];
    if MODULATE {
        let item = row / p.t * p.c;
        y = y * (1.0 + scale[(p.os + item) / 4u + i]) + shift[(p.oh + item) / 4u + i];
    }
    out[(p.oo + row * p.c) / 4u + i] = y;
}

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
    let a = part(row, local);
    let b = part(row, local + THREADS);
    let c = part(row, local + 2u * THREADS);
    let d = part(row, local + 3u * THREADS);
    let squares = dot(a, a) + dot(b, b) + dot(c, c) + dot(d, d);
    let r = 1.0 / sqrt(sum_all(local, squares) / f32(p.c) + p.eps);
    put(row, local, a * r);
    put(row, local + THREADS, b * r);
    put(row, local + 2u * THREADS, c * r);
    put(row, local + 3u * THREADS, d * r);
}
