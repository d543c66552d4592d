// Angle-based guidance of x (latent), c, u (B, T, C): one workgroup a frame. Angles come from the
// distance and the sum of the unit vectors, which f32 resolves where a cosine near 1 is all
// rounding. Consts: CLIP, RENORM (then `out` is the clean sample, and adg_renorm follows), WIDEST.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> c: array<f32>;
@group(0) @binding(2) var<storage, read_write> u: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> scalars: array<f32>;

struct Params {
    ox: u32,
    oc: u32,
    ou: u32,
    oo: u32,
    rows: u32,
    c: u32,
    scale: u32,
    time: u32,
}
var<immediate> p: Params;

const THREADS: u32 = 64u;
var<workgroup> sums: array<vec3<f32>, THREADS>;

// Sum over the workgroup; every thread gets it.
fn total(local: u32, part: vec3<f32>) -> vec3<f32> {
    workgroupBarrier();
    sums[local] = part;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    return sums[0];
}

// atan(y / x) for y, x >= 0, not both 0.
fn angle_of(y: f32, x: f32) -> f32 {
    let swapped = y > x;
    let z = select(y / x, x / y, swapped);
    // Twice atan z = 2 atan(z / (1 + sqrt(1 + z^2))), then the series for at most 0.2.
    let y1 = z / (1.0 + sqrt(1.0 + z * z));
    let w = y1 / (1.0 + sqrt(1.0 + y1 * y1));
    let s = w * w;
    let a = 4.0 * (w + w * s * (-0.333333333 + s * (0.2 + s * (-0.142857143 + s * 0.111111111))));
    return select(a, 1.57079632679 - a, swapped);
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
    let time = scalars[p.time];
    let source = row * p.c;
    var part = vec3<f32>(); // <a, a>, <b, b>, <a - b, b>
    for (var i = source + local; i < source + p.c; i += THREADS) {
        let z = x[p.ox + i];
        let a = z - time * c[p.oc + i];
        let b = z - time * u[p.ou + i];
        // a - b without the large part that cancels.
        let d = time * (u[p.ou + i] - c[p.oc + i]);
        part += vec3<f32>(a * a, b * b, d * b);
    }
    let whole = total(local, part);
    let la = max(sqrt(whole.x), 1e-30);
    let lb = max(sqrt(whole.y), 1e-30);
    part = vec3<f32>();
    for (var i = source + local; i < source + p.c; i += THREADS) {
        let z = x[p.ox + i];
        let a = (z - time * c[p.oc + i]) / la;
        let b = (z - time * u[p.ou + i]) / lb;
        part += vec3<f32>((a - b) * (a - b), (a + b) * (a + b), 0.0);
    }
    let chord = total(local, part);
    var theta = 0.0;
    if whole.x > 0.0 && whole.y > 0.0 {
        theta = 2.0 * angle_of(sqrt(chord.x), sqrt(chord.y));
    }
    // acos of 1 - 1e-6 and of -1 + 1e-6.
    theta = clamp(theta, 1.41421368e-3, 3.14017844);
    let weight = max(scalars[p.scale] - 1.0, 0.0) + 1e-3;
    var angle = weight * theta;
    if CLIP {
        angle = clamp(angle, -WIDEST, WIDEST);
    }
    let turned = sin_cos_of(angle);
    let sine = sin_cos_of(theta).x;
    let across = select(weight, turned.x / sine, sine > 1e-3);
    let along = whole.z / (whole.y + 1e-8);
    for (var i = source + local; i < source + p.c; i += THREADS) {
        let z = x[p.ox + i];
        let a = z - time * c[p.oc + i];
        let b = z - time * u[p.ou + i];
        let d = time * (u[p.ou + i] - c[p.oc + i]);
        let clean = turned.y * a + across * (d - along * b);
        if RENORM {
            out[p.oo + i] = clean;
        } else {
            out[p.oo + i] = (z - clean) / time;
        }
    }
}
