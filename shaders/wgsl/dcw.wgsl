// Wavelet correction of x (B, T, C) towards y. Consts: TAPS and FILTER, an array of TAPS f32, the
// low-pass decomposition filter; MODE: 0 low, 1 high, 2 double, 3 pixel; PASS: 0 makes the weighted
// bands of x - y in `bands` (B, n, 2 C), 1 adds them back; pixel mode has pass 1 only.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<storage, read_write> bands: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> scalars: array<f32>;

struct Params {
    ox: u32,
    oy: u32,
    ob: u32,
    oo: u32,
    total: u32,
    t: u32,
    c: u32,
    n: u32,
    time: u32,
    low: f32,
    high: f32,
}
var<immediate> p: Params;

// Factors of the low and the high band.
fn strengths() -> vec2<f32> {
    let t = scalars[p.time];
    if MODE == 0u {
        return vec2<f32>(t * p.low, 0.0);
    }
    if MODE == 1u {
        return vec2<f32>(0.0, (1.0 - t) * p.low);
    }
    return vec2<f32>(t * p.low, (1.0 - t) * p.high);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = folded(group, groups) * 64u + local;
    if i >= p.total {
        return;
    }
    var filter_of = FILTER;
    let channel = i % p.c;
    let rows = select(p.t, p.n, PASS == 0u);
    let row = i / p.c % rows;
    let item = i / p.c / rows;
    if MODE == 3u {
        out[p.oo + i] = x[p.ox + i] + p.low * (x[p.ox + i] - y[p.oy + i]);
        return;
    }
    if PASS == 0u {
        var low = 0.0;
        var high = 0.0;
        for (var j = 0u; j < TAPS; j++) {
            let at = i32(2u * row + 1u) - i32(j);
            if at >= 0 && at < i32(p.t) {
                let source = (item * p.t + u32(at)) * p.c + channel;
                let d = x[p.ox + source] - y[p.oy + source];
                let mirrored = TAPS - 1u - j;
                let g = filter_of[mirrored];
                low += filter_of[j] * d;
                high += select(g, -g, (mirrored & 1u) == 1u) * d;
            }
        }
        let factors = strengths();
        let to = p.ob + (item * p.n + row) * 2u * p.c + channel;
        bands[to] = low * factors.x;
        bands[to + p.c] = high * factors.y;
        return;
    }
    var sum = x[p.ox + i];
    let last = min((row + TAPS - 2u) / 2u, p.n - 1u);
    for (var k = row / 2u; k <= last; k++) {
        let j = 2u * k + 1u - row;
        let mirrored = TAPS - 1u - j;
        let g = filter_of[mirrored];
        let source = p.ob + (item * p.n + k) * 2u * p.c + channel;
        sum += filter_of[j] * bands[source];
        sum += select(g, -g, (mirrored & 1u) == 1u) * bands[source + p.c];
    }
    out[p.oo + i] = sum;
}
