// Weights stored as f32. `Quad` holds four of them, and so does `Piece`, the 16 bytes of one load.
alias Quad = vec4<u32>;
alias Piece = vec4<u32>;
const PIECE_QUADS: u32 = 1u;

// The word that holds element i, and the element in it.
fn word_at(i: u32) -> u32 {
    return i;
}

fn decode1(word: u32, i: u32) -> f32 {
    return bitcast<f32>(word);
}

fn decode4(raw: Quad) -> vec4<f32> {
    return bitcast<vec4<f32>>(raw);
}

fn decode_piece(raw: Piece) -> mat2x4<f32> {
    return mat2x4<f32>(decode4(raw), vec4<f32>());
}
