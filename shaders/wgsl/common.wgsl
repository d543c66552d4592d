// What every shader begins with. Elementary functions are our own, because WGSL promises little
// of the built-in ones (2^-11 for sin, (3 + 2|x|) units for exp) and vendors differ.

const LOG2_E: f32 = 1.44269504;
const HALF_PI_INV: f32 = 0.636619772;

// Number of this workgroup in a grid that was folded into two axes.
fn folded(group: vec3<u32>, groups: vec3<u32>) -> u32 {
    return group.y * groups.x + group.x;
}

// e^x to about 2 units in the last place; 0 below -87, the largest power of two above 88.
fn exp_of(x: f32) -> f32 {
    if x < -87.0 {
        return 0.0;
    }
    let n = round(min(x, 88.0) * LOG2_E);
    let r = (min(x, 88.0) - n * 0.693359375) + n * 2.12194440e-4;
    let q = ((((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r
        + 4.1665795894e-2) * r + 1.6666665459e-1) * r + 5.0000001201e-1;
    return (q * r * r + r + 1.0) * bitcast<f32>(u32(i32(n) + 127) << 23u);
}

// (sin x, cos x) for |x| up to some thousands, to 1e-7.
fn sin_cos_of(x: f32) -> vec2<f32> {
    let n = round(x * HALF_PI_INV);
    let r = ((x - n * 1.5703125) - n * 4.837512969970703e-4) - n * 7.549789948768648e-8;
    let u = r * r;
    let s = r + r * u * (-1.6666654611e-1 + u * (8.3321608736e-3 - u * 1.9515295891e-4));
    let c = 1.0 - 0.5 * u + u * u * (4.166664568298827e-2
        + u * (-1.388731625493765e-3 + u * 2.443315711809948e-5));
    let quadrant = i32(n) & 3;
    let swapped = (quadrant & 1) != 0;
    let sine = select(s, c, swapped);
    let cosine = select(c, s, swapped);
    return vec2<f32>(
        select(sine, -sine, quadrant >= 2),
        select(cosine, -cosine, quadrant == 1 || quadrant == 2),
    );
}

// sin(x)^2, which has period pi and is even: no quadrants.
fn sin_squared_of(x: f32) -> f32 {
    let n = round(x * 0.318309886);
    let r = ((x - n * 3.140625) - n * 9.670257568359375e-4) - n * 6.278329571e-7;
    let u = r * r;
    let s = r * (1.0 + u * (-0.16666655 + u * (8.33307e-3 + u * (-1.98106e-4 + u * 2.6083163e-6))));
    return s * s;
}

// x / (1 + e^-x).
fn silu_of(x: f32) -> f32 {
    return x / (1.0 + exp_of(-x));
}

fn silu4(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(silu_of(x.x), silu_of(x.y), silu_of(x.z), silu_of(x.w));
}

// The element in the low or high half of a word.
fn bf16_low(word: u32) -> f32 {
    return bitcast<f32>(word << 16u);
}

fn bf16_high(word: u32) -> f32 {
    return bitcast<f32>(word & 0xffff0000u);
}

// Nearest bf16, ties to even, in the low half.
fn bf16_bits(x: f32) -> u32 {
    let u = bitcast<u32>(x);
    return (u + 0x7fffu + ((u >> 16u) & 1u)) >> 16u;
}

// The nearest bf16.
fn bf16_of(x: f32) -> f32 {
    return bitcast<f32>(bf16_bits(x) << 16u);
}
