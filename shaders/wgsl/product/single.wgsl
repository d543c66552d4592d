// A product with one matrix of weights: plain sums, or sums and a bias.
@group(0) @binding(1) var<storage, read> w: array<Stored>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;

const PAIR: bool = false;

fn bias4(n: u32) -> vec4<f32> {
    if !BIAS {
        return vec4<f32>();
    }
    let last = p.n - 1u;
    return vec4<f32>(
        bias[p.ob + n],
        bias[p.ob + min(n + 1u, last)],
        bias[p.ob + min(n + 2u, last)],
        bias[p.ob + min(n + 3u, last)],
    );
}

fn first_weight(second: bool) -> u32 {
    return p.ow;
}

fn weight(second: bool, i: u32) -> Stored {
    return w[i];
}
