// Operands of a product read four at a time: cin and all offsets are multiples of 4.
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;

alias Stored = Quad;

// Summands at .. at + 4 of row m; nothing from `end` on.
fn left4(item: u32, m: u32, at: At, end: u32) -> vec4<f32> {
    let row = input_row(m, at.tap);
    if m >= p.rows || at.kk >= end || row < 0 || row >= i32(p.tin) {
        return vec4<f32>();
    }
    return operand4(x[(p.ox + (item * p.tin + u32(row)) * p.cin + at.ci) >> 2u]);
}

// Weights at .. at + 4 of column n of the first or the second matrix.
fn right4(second: bool, r: u32, n: u32, at: At, end: u32) -> vec4<f32> {
    if n >= p.n || at.kk >= end {
        return vec4<f32>();
    }
    let i = weight_at(first_weight(second), r, n, at.kk, at.tap, at.ci) >> 2u;
    return weights4(decode4(weight(second, i)));
}
