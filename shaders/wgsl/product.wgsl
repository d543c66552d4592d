// What products have in common: linears, convolutions and transposed convolutions are one
// product whose left rows are addresses.
//
// Row m of item b, summand kk = tap cin + ci: the left operand is x[b, m step + tap dil + off, ci]
// (0 outside of 0 .. tin), the right one W[n, tap, ci]. Transposed (const TRANSPOSED): the rows of
// phase r are the outputs t = m phases + r - pad, the taps r, r + phases, ... of W[tap, n, ci].
//
// Consts: ONE_TAP (taps is 1), TRANSPOSED, ROUND (operands to bf16), BIAS (adds bias[n]).
// Pieces that complete it: how operands are read (`product/quads.wgsl`, `words`, `pieces`), what
// is made of the sums (`single`, `pair`), how they are written (`out_quads`, `out_words`).
struct Params {
    ox: u32,
    ow: u32,
    ob: u32, // of the bias; of a pair: of the second weights
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

// A summand, and where it lies when all quads of summands lie within one tap.
struct At {
    kk: u32,
    tap: u32,
    ci: u32,
}

fn at_summand(kk: u32) -> At {
    if ONE_TAP {
        return At(kk, 0u, kk);
    }
    let tap = kk / p.cin;
    return At(kk, tap, kk - tap * p.cin);
}

// `by` summands further, without a division.
fn forward(at: At, by: u32) -> At {
    var next = At(at.kk + by, at.tap, at.ci + by);
    if !ONE_TAP {
        while next.ci >= p.cin {
            next.ci -= p.cin;
            next.tap += 1u;
        }
    }
    return next;
}

// Summands of phase r.
fn depth(r: u32) -> u32 {
    if ONE_TAP {
        return p.cin;
    }
    if TRANSPOSED {
        return select(0u, (p.taps - r + p.phases - 1u) / p.phases, p.taps > r) * p.cin;
    }
    return p.taps * p.cin;
}

// The input row of a left operand, negative or beyond tin where there is none.
fn input_row(m: u32, tap: u32) -> i32 {
    return i32(m) * p.step + i32(tap) * p.dil + p.off;
}

// Where the weight W[n, kk] lies, of phase r.
fn weight_at(first: u32, r: u32, n: u32, kk: u32, tap: u32, ci: u32) -> u32 {
    if TRANSPOSED {
        return first + ((r + tap * p.phases) * p.n + n) * p.cin + ci;
    }
    return first + n * p.taps * p.cin + kk;
}

fn operand1(x: f32) -> f32 {
    if ROUND {
        return bf16_of(x);
    }
    return x;
}

fn operand4(x: vec4<f32>) -> vec4<f32> {
    if ROUND {
        return vec4<f32>(bf16_of(x.x), bf16_of(x.y), bf16_of(x.z), bf16_of(x.w));
    }
    return x;
}

// Weights of two bytes are bf16 already, or are rounded as any operand.
fn weights4(x: vec4<f32>) -> vec4<f32> {
    if STORED_BF16 {
        return x;
    }
    return operand4(x);
}

// Writes the sums of columns n .. n + 4 of row m; `base` is the output's first element.
fn store4(base: u32, item: u32, r: u32, m: u32, n: u32, sums: vec4<f32>) {
    let t = i32(select(m, m * p.phases + r, TRANSPOSED)) - i32(select(0u, p.pad, TRANSPOSED));
    if m >= p.rows || n >= p.n || t < 0 || t >= i32(p.tout) {
        return;
    }
    write4(base + (item * p.tout + u32(t)) * p.stride + n, p.n - n, sums + bias4(n));
}

// Writes the sums of rows m .. m + 4 and columns n .. n + 4, `d` those of the second matrix.
fn store_rows(item: u32, r: u32, m: u32, n: u32, c: mat4x4<f32>, d: mat4x4<f32>) {
    var y = c;
    if PAIR {
        y = mat4x4<f32>(silu4(c[0]) * d[0], silu4(c[1]) * d[1], silu4(c[2]) * d[2], silu4(c[3]) * d[3]);
    }
    store4(p.oo, item, r, m, n, y[0]);
    store4(p.oo, item, r, m + 1u, n, y[1]);
    store4(p.oo, item, r, m + 2u, n, y[2]);
    store4(p.oo, item, r, m + 3u, n, y[3]);
}
