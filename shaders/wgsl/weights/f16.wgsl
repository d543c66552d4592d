// Weights stored as IEEE half, two in a word. `w4` takes a multiple of 4.
fn w1(i: u32) -> f32 {
    let pair = unpack2x16float(w[i >> 1u]);
    return select(pair.x, pair.y, (i & 1u) == 1u);
}

fn w4(i: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(w[i >> 1u]), unpack2x16float(w[(i >> 1u) + 1u]));
}
