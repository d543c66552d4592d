// The weights by which attention mixes values, of the query heads HEADS (an array of COUNT u32)
// alone: q (B, T, H, D), k (B, S, G, D), out (B, COUNT, T, S). One workgroup a query of a head.
//
// Consts: CAUSAL, WINDOW (queries see |i - j| <= p.window), LENGTHS (keys 0 .. lengths[b] only),
// KV_BF16, ROUND (operands to bf16). Hidden keys get 0 and are not read.
@group(0) @binding(0) var<storage, read_write> q: array<f32>;
@group(0) @binding(1) var<storage, read_write> k: array<u32>;
@group(0) @binding(2) var<storage, read_write> lengths: array<i32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

struct Params {
    oq: u32,
    ok: u32,
    ol: u32,
    oo: u32,
    rows: u32,
    t: u32,
    s: u32,
    h: u32,
    g: u32,
    d: u32,
    window: u32,
    scale: f32,
}
var<immediate> p: Params;

const HIDDEN: f32 = -1e30;
const THREADS: u32 = 64u;
var<workgroup> parts: array<f32, THREADS>;

fn key_at(i: u32) -> f32 {
    if KV_BF16 {
        let word = k[i >> 1u];
        return select(bf16_low(word), bf16_high(word), (i & 1u) == 1u);
    }
    return operand(bitcast<f32>(k[i]));
}

fn operand(x: f32) -> f32 {
    if ROUND {
        return bf16_of(x);
    }
    return x;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = folded(group, groups);
    if row >= p.rows {
        return;
    }
    var heads = HEADS;
    let t = row % p.t;
    let head = heads[row / p.t % COUNT];
    let b = row / p.t / COUNT;
    var len = p.s;
    if LENGTHS {
        len = u32(clamp(lengths[p.ol + b], 0, i32(p.s)));
    }
    let back = i32(len) - i32(p.t);
    let query = p.oq + ((b * p.t + t) * p.h + head) * p.d;
    var peak = HIDDEN;
    for (var key = local; key < p.s; key += THREADS) {
        var seen = key < len;
        if CAUSAL {
            seen = seen && i32(key) <= i32(t) + back;
        }
        if WINDOW {
            seen = seen && max(key, t) - min(key, t) <= p.window;
        }
        var score = HIDDEN;
        if seen {
            let first = p.ok + ((b * p.s + key) * p.g + head / (p.h / p.g)) * p.d;
            score = 0.0;
            for (var d = 0u; d < p.d; d++) {
                score += operand(q[query + d]) * key_at(first + d);
            }
            score *= p.scale;
        }
        out[p.oo + row * p.s + key] = score;
        peak = max(peak, score);
    }
    parts[local] = peak;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            parts[local] = max(parts[local], parts[local + half]);
        }
    }
    workgroupBarrier();
    peak = parts[0];
    workgroupBarrier();
    var sum = 0.0;
    for (var key = local; key < p.s; key += THREADS) {
        let at = p.oo + row * p.s + key;
        let score = out[at];
        let weight = select(0.0, exp_of(score - peak), score > 0.5 * HIDDEN);
        out[at] = weight;
        sum += weight;
    }
    parts[local] = sum;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            parts[local] += parts[local + half];
        }
    }
    workgroupBarrier();
    let total = max(parts[0], 1e-30);
    for (var key = local; key < p.s; key += THREADS) {
        out[p.oo + row * p.s + key] /= total;
    }
}
