// Weights stored as f32. `w4` takes a multiple of 4.
fn w1(i: u32) -> f32 {
    return bitcast<f32>(w[i]);
}

fn w4(i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]));
}
