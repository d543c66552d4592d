// What the shaders of attention for heads of 128 share. q (B, T, H, 128), k and v (B, S, G, 128),
// out like q; offsets are multiples of 4 elements.
//
// Consts: CAUSAL, WINDOW (queries see |i - j| <= p.window), LENGTHS (keys 0 .. lengths[b] only),
// ROUND (operands to bf16). A query that sees no key gives zeros.
@group(0) @binding(0) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> lengths: array<i32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

const HIDDEN: f32 = -1e30;
// Vectors of a head.
const QUADS: u32 = 32u;

fn operand4(x: vec4<f32>) -> vec4<f32> {
    if ROUND {
        let u = bitcast<vec4<u32>>(x);
        let odd = (u >> vec4<u32>(16u)) & vec4<u32>(1u);
        return bitcast<vec4<f32>>((u + vec4<u32>(0x7fffu) + odd) & vec4<u32>(0xffff0000u));
    }
    return x;
}

// e^x of x <= 0, as exp_of.
fn exp4_of(x: vec4<f32>) -> vec4<f32> {
    let y = max(x, vec4<f32>(-88.0));
    let n = round(y * LOG2_E);
    let r = (y - n * 0.693359375) + n * 2.12194440e-4;
    let q = ((((1.9875691500e-4 * r + 1.3981999507e-3) * r + 8.3334519073e-3) * r
        + 4.1665795894e-2) * r + 1.6666665459e-1) * r + 5.0000001201e-1;
    let power = bitcast<vec4<f32>>((vec4<u32>(vec4<i32>(n) + 127)) << vec4<u32>(23u));
    return select((q * r * r + r + 1.0) * power, vec4<f32>(), x < vec4<f32>(-87.0));
}

// Keys that item b has.
fn key_count(b: u32) -> u32 {
    if LENGTHS {
        return u32(clamp(lengths[p.ol + b], 0, i32(p.s)));
    }
    return p.s;
}

// Keys x .. y are seen by some query of first ..= last.
fn seen_keys(first: u32, last: u32, len: u32) -> vec2<u32> {
    var keys = vec2<u32>(0u, len);
    if CAUSAL {
        keys.y = u32(clamp(i32(last) + i32(len) - i32(p.t) + 1, 0, i32(len)));
    }
    if WINDOW {
        keys.x = first - min(first, p.window);
        keys.y = min(len, last + min(p.window, p.s) + 1u);
    }
    return keys;
}

// Scores of four queries and a key, without those that are hidden. Of causal queries, the position
// among the keys is t + len - p.t.
fn visible(scores: vec4<f32>, t: vec4<u32>, key: u32, len: u32) -> vec4<f32> {
    var seen = vec4<bool>(key < len);
    if CAUSAL {
        let last = vec4<i32>(t) + (i32(len) - i32(p.t));
        seen = seen & (vec4<i32>(i32(key)) <= last);
    }
    if WINDOW {
        let other = vec4<u32>(key);
        seen = seen & (max(other, t) - min(other, t) <= vec4<u32>(p.window));
    }
    return select(vec4<f32>(HIDDEN), scores, seen);
}

// Weights before they are divided by their sum.
fn weights_of(scores: vec4<f32>, most: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), exp4_of(scores - most), scores > vec4<f32>(0.5 * HIDDEN));
}

// 1 / total, or 0 for a query that has seen nothing.
fn inverse(total: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(), 1.0 / max(total, vec4<f32>(1e-30)), total > vec4<f32>());
}
