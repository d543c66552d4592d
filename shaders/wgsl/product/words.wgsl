// Operands of a product read one at a time, wherever they lie.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;

alias Stored = u32;

fn left1(item: u32, m: u32, kk: u32, end: u32) -> f32 {
    let at = at_summand(kk);
    let row = input_row(m, at.tap);
    if m >= p.rows || kk >= end || row < 0 || row >= i32(p.tin) {
        return 0.0;
    }
    return operand1(x[p.ox + (item * p.tin + u32(row)) * p.cin + at.ci]);
}

// Summands at .. at + 4 of row m; nothing from `end` on.
fn left4(item: u32, m: u32, at: At, end: u32) -> vec4<f32> {
    return vec4<f32>(
        left1(item, m, at.kk, end),
        left1(item, m, at.kk + 1u, end),
        left1(item, m, at.kk + 2u, end),
        left1(item, m, at.kk + 3u, end),
    );
}

fn right1(second: bool, r: u32, n: u32, kk: u32, end: u32) -> f32 {
    if n >= p.n || kk >= end {
        return 0.0;
    }
    let at = at_summand(kk);
    let i = weight_at(first_weight(second), r, n, kk, at.tap, at.ci);
    return operand1(decode1(weight(second, word_at(i)), i));
}

// Weights at .. at + 4 of column n of the first or the second matrix.
fn right4(second: bool, r: u32, n: u32, at: At, end: u32) -> vec4<f32> {
    return vec4<f32>(
        right1(second, r, n, at.kk, end),
        right1(second, r, n, at.kk + 1u, end),
        right1(second, r, n, at.kk + 2u, end),
        right1(second, r, n, at.kk + 3u, end),
    );
}
