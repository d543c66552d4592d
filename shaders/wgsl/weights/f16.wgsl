// Weights stored as IEEE half. `Quad` holds four of them, `Piece` the 16 bytes of one load.
alias Quad = vec2<u32>;
alias Piece = vec4<u32>;
const PIECE_QUADS: u32 = 2u;

// The word that holds element i, and the element in it.
fn word_at(i: u32) -> u32 {
    return i >> 1u;
}

fn decode1(word: u32, i: u32) -> f32 {
    let pair = unpack2x16float(word);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

fn decode4(raw: Quad) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(raw.x), unpack2x16float(raw.y));
}

fn decode_piece(raw: Piece) -> mat2x4<f32> {
    return mat2x4<f32>(decode4(raw.xy), decode4(raw.zw));
}
