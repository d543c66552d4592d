// What products have in common: linears, convolutions and transposed convolutions are one
// product whose left rows are addresses.
//
// Row m of item b, summand kk = tap cin + ci: the left operand is x[b, m step + tap dil + off, ci]
// (0 outside of 0 .. tin), the right one W[n, tap, ci]. Transposed (const TRANSPOSED): the rows of
// phase r are the outputs t = m phases + r - pad, the taps r, r + phases, ... of W[tap, n, ci].
//
// Consts: VECTOR: cin and all offsets are multiples of 4; BIAS adds bias[n]; GATE multiplies with
// silu(gate[b, t, n]), gate laid out as the output, its first column p.ob elements behind the start of
// its binding; ROUND rounds operands to bf16.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> gate: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

struct Params {
    ox: u32,
    ow: u32,
    ob: u32,
    oo: u32,
    cin: u32,
    taps: u32,
    n: u32,
    tin: u32,
    rows: u32,
    step: i32,
    dil: i32,
    off: i32,
    phases: u32,
    pad: u32,
    tout: u32,
    stride: u32, // from output row to output row
}
var<immediate> p: Params;

// Summands of phase r.
fn depth(r: u32) -> u32 {
    if TRANSPOSED {
        return select(0u, (p.taps - r + p.phases - 1u) / p.phases, p.taps > r) * p.cin;
    }
    return p.taps * p.cin;
}

fn operand1(x: f32) -> f32 {
    if ROUND {
        return bf16_of(x);
    }
    return x;
}

fn operand4(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(operand1(x.x), operand1(x.y), operand1(x.z), operand1(x.w));
}

fn left1(item: u32, m: u32, kk: u32, depth: u32) -> f32 {
    let tap = kk / p.cin;
    let at = i32(m) * p.step + i32(tap) * p.dil + p.off;
    if m >= p.rows || kk >= depth || at < 0 || at >= i32(p.tin) {
        return 0.0;
    }
    return operand1(x[p.ox + (item * p.tin + u32(at)) * p.cin + (kk - tap * p.cin)]);
}

// Summands kk .. kk + 4.
fn left4(item: u32, m: u32, kk: u32, depth: u32) -> vec4<f32> {
    if !VECTOR {
        return vec4<f32>(
            left1(item, m, kk, depth),
            left1(item, m, kk + 1u, depth),
            left1(item, m, kk + 2u, depth),
            left1(item, m, kk + 3u, depth),
        );
    }
    let tap = kk / p.cin;
    let at = i32(m) * p.step + i32(tap) * p.dil + p.off;
    if m >= p.rows || kk >= depth || at < 0 || at >= i32(p.tin) {
        return vec4<f32>();
    }
    let i = p.ox + (item * p.tin + u32(at)) * p.cin + (kk - tap * p.cin);
    return operand4(vec4<f32>(x[i], x[i + 1u], x[i + 2u], x[i + 3u]));
}

fn weight_at(r: u32, n: u32, kk: u32) -> u32 {
    if TRANSPOSED {
        let tap = kk / p.cin;
        return p.ow + ((r + tap * p.phases) * p.n + n) * p.cin + (kk - tap * p.cin);
    }
    return p.ow + n * p.taps * p.cin + kk;
}

fn right1(r: u32, n: u32, kk: u32, depth: u32) -> f32 {
    if n >= p.n || kk >= depth {
        return 0.0;
    }
    return operand1(w1(weight_at(r, n, kk)));
}

fn right4(r: u32, n: u32, kk: u32, depth: u32) -> vec4<f32> {
    if !VECTOR {
        return vec4<f32>(
            right1(r, n, kk, depth),
            right1(r, n, kk + 1u, depth),
            right1(r, n, kk + 2u, depth),
            right1(r, n, kk + 3u, depth),
        );
    }
    if n >= p.n || kk >= depth {
        return vec4<f32>();
    }
    return operand4(w4(weight_at(r, n, kk)));
}

fn store(item: u32, r: u32, m: u32, n: u32, sum: f32) {
    let t = i32(select(m, m * p.phases + r, TRANSPOSED)) - i32(select(0u, p.pad, TRANSPOSED));
    if m >= p.rows || n >= p.n || t < 0 || t >= i32(p.tout) {
        return;
    }
    let at = (item * p.tout + u32(t)) * p.stride + n;
    var y = sum;
    if BIAS {
        y += bias[p.ob + n];
    }
    if GATE {
        y *= silu_of(gate[p.ob + at]);
    }
    out[p.oo + at] = y;
}
