// Softmax attention with grouped heads, q (B, T, H, D), k and v (B, S, G, D), out like q; the
// score matrix is never formed. A workgroup has QUERIES queries of one head and walks over blocks
// of KEYS keys; 64 threads are QUERIES by LANES.
//
// Consts: D, QUERIES, LANES, KEYS; CAUSAL, WINDOW (queries see |i - j| <= p.window), LENGTHS (keys
// 0 .. lengths[b] only), KV_BF16, ROUND (operands to bf16). Hidden keys are not read but for those that share a block with
// visible ones. A query that sees no key gives zeros.
@group(0) @binding(0) var<storage, read_write> q: array<f32>;
@group(0) @binding(1) var<storage, read_write> k: array<u32>;
@group(0) @binding(2) var<storage, read_write> v: array<u32>;
@group(0) @binding(3) var<storage, read_write> lengths: array<i32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const HIDDEN: f32 = -1e30;

var<workgroup> sq: array<f32, QUERIES * D>;
var<workgroup> so: array<f32, QUERIES * D>;
var<workgroup> sk: array<f32, KEYS * D>; // keys, then values
var<workgroup> sp: array<f32, QUERIES * KEYS>;

fn half_of(word: u32, i: u32) -> f32 {
    return select(bf16_low(word), bf16_high(word), (i & 1u) == 1u);
}

fn operand(x: f32) -> f32 {
    if ROUND {
        return bf16_of(x);
    }
    return x;
}

fn key_at(i: u32) -> f32 {
    if KV_BF16 {
        return half_of(k[i >> 1u], i);
    }
    return operand(bitcast<f32>(k[i]));
}

fn value_at(i: u32) -> f32 {
    if KV_BF16 {
        return half_of(v[i >> 1u], i);
    }
    return operand(bitcast<f32>(v[i]));
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let b = group.z;
    let head = group.y;
    let first = group.x * QUERIES;
    let kv_head = head / (p.h / p.g);
    let row = local / LANES;
    let lane = local % LANES;
    let t = first + row;

    var len = p.s;
    if LENGTHS {
        len = u32(clamp(lengths[p.ol + b], 0, i32(p.s)));
    }
    // Keys begin .. end are seen by some query of the block.
    var begin = 0u;
    var end = len;
    let last = min(first + QUERIES, p.t) - 1u;
    // Of causal queries, the position among the keys is t + back.
    let back = i32(len) - i32(p.t);
    if CAUSAL {
        end = u32(clamp(i32(last) + back + 1, 0, i32(len)));
    }
    if WINDOW {
        begin = select(0u, first - p.window, first > p.window) / KEYS * KEYS;
        end = min(len, last + min(p.window, p.s) + 1u);
    }

    for (var i = local; i < QUERIES * D; i += 64u) {
        let query = first + i / D;
        so[i] = 0.0;
        sq[i] = 0.0;
        if query < p.t {
            sq[i] = operand(q[p.oq + ((b * p.t + query) * p.h + head) * D + i % D]);
        }
    }
    var peak = HIDDEN;
    var total = 0.0;
    for (var start = begin; start < end; start += KEYS) {
        workgroupBarrier();
        for (var i = local; i < KEYS * D; i += 64u) {
            let key = start + i / D;
            sk[i] = 0.0;
            if key < end {
                sk[i] = key_at(p.ok + ((b * p.s + key) * p.g + kv_head) * D + i % D);
            }
        }
        workgroupBarrier();
        for (var j = lane; j < KEYS; j += LANES) {
            let key = start + j;
            var seen = key < end;
            if CAUSAL {
                seen = seen && i32(key) <= i32(t) + back;
            }
            if WINDOW {
                seen = seen && max(key, t) - min(key, t) <= p.window;
            }
            var score = 0.0;
            for (var d = 0u; d < D; d++) {
                score += sq[row * D + d] * sk[j * D + d];
            }
            sp[row * KEYS + j] = select(HIDDEN, score * p.scale, seen);
        }
        workgroupBarrier();
        var top = peak;
        for (var j = 0u; j < KEYS; j++) {
            top = max(top, sp[row * KEYS + j]);
        }
        let shrink = exp_of(peak - top);
        peak = top;
        workgroupBarrier();
        for (var j = lane; j < KEYS; j += LANES) {
            let score = sp[row * KEYS + j];
            sp[row * KEYS + j] = select(0.0, exp_of(score - top), score > 0.5 * HIDDEN);
        }
        for (var i = local; i < KEYS * D; i += 64u) {
            let key = start + i / D;
            sk[i] = 0.0;
            if key < end {
                sk[i] = value_at(p.ov + ((b * p.s + key) * p.g + kv_head) * D + i % D);
            }
        }
        workgroupBarrier();
        var sum = 0.0;
        for (var j = 0u; j < KEYS; j++) {
            sum += sp[row * KEYS + j];
        }
        total = total * shrink + sum;
        for (var d = lane; d < D; d += LANES) {
            var o = so[row * D + d] * shrink;
            for (var j = 0u; j < KEYS; j++) {
                o += sp[row * KEYS + j] * sk[j * D + d];
            }
            so[row * D + d] = o;
        }
    }
    if t < p.t {
        for (var d = lane; d < D; d += LANES) {
            let y = select(0.0, so[row * D + d] / max(total, 1e-30), total > 0.0);
            out[p.oo + ((b * p.t + t) * p.h + head) * D + d] = y;
        }
    }
}
