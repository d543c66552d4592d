// Weights of a product read in pieces of 16 bytes, left operands four at a time: one tap, cin and
// all offsets are multiples of a piece.
@group(0) @binding(0) var<storage, read_write> x: array<vec4<f32>>;

alias Stored = Piece;

// Summands of a step.
const STEP: u32 = 4u * PIECE_QUADS;

// Left operands k .. k + 4 of row m.
fn few_left(m: u32, k: u32) -> vec4<f32> {
    return operand4(x[(p.ox + m * p.cin + k) >> 2u]);
}

// Weights k .. k + STEP of column n.
fn few_right(second: bool, n: u32, k: u32) -> mat2x4<f32> {
    let raw = weight(second, (first_weight(second) + n * p.cin + k) / STEP);
    let both = decode_piece(raw);
    return mat2x4<f32>(weights4(both[0]), weights4(both[1]));
}
