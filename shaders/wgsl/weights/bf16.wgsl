// Weights stored as bf16. `Quad` holds four of them, `Piece` the 16 bytes that one load brings.
alias Quad = vec2<u32>;
alias Piece = vec4<u32>;
const PIECE_QUADS: u32 = 2u;

// The word that holds element i, and the element in it.
fn word_at(i: u32) -> u32 {
    return i >> 1u;
}

fn decode1(word: u32, i: u32) -> f32 {
    return select(bf16_low(word), bf16_high(word), (i & 1u) == 1u);
}

fn decode4(raw: Quad) -> vec4<f32> {
    return vec4<f32>(bf16_low(raw.x), bf16_high(raw.x), bf16_low(raw.y), bf16_high(raw.y));
}

fn decode_piece(raw: Piece) -> mat2x4<f32> {
    return mat2x4<f32>(decode4(raw.xy), decode4(raw.zw));
}
