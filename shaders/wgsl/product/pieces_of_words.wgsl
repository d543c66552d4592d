// Steps of four summands of a product with one tap, read by `words`.
const STEP: u32 = 4u;

// Left operands k .. k + 4 of row m.
fn few_left(m: u32, k: u32) -> vec4<f32> {
    return left4(0u, m, at_summand(k), p.cin);
}

// Weights k .. k + 4 of column n.
fn few_right(second: bool, n: u32, k: u32) -> mat2x4<f32> {
    return mat2x4<f32>(right4(second, 0u, n, at_summand(k), p.cin), vec4<f32>());
}
