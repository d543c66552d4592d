// Weights stored as bf16, two in a word. `w4` takes a multiple of 4.
fn w1(i: u32) -> f32 {
    let word = w[i >> 1u];
    return select(bf16_low(word), bf16_high(word), (i & 1u) == 1u);
}

fn w4(i: u32) -> vec4<f32> {
    let a = w[i >> 1u];
    let b = w[(i >> 1u) + 1u];
    return vec4<f32>(bf16_low(a), bf16_high(a), bf16_low(b), bf16_high(b));
}
