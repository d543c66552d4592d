// Two matrices of weights for the same left rows: silu of the first product times the second.
@group(0) @binding(1) var<storage, read> w: array<Stored>;
@group(0) @binding(2) var<storage, read> w2: array<Stored>;

const PAIR: bool = true;

fn bias4(n: u32) -> vec4<f32> {
    return vec4<f32>();
}

fn first_weight(second: bool) -> u32 {
    return select(p.ow, p.ob, second);
}

fn weight(second: bool, i: u32) -> Stored {
    if second {
        return w2[i];
    }
    return w[i];
}
