// Attention of few queries, heads of 128: a workgroup has four queries of the heads that share keys
// and values, and one block of 128 keys. The queries of such heads are numbered t (H / G) + head.
// Eight threads score a key together, each with its own 16 elements of the queries; 32 threads
// mix values, a vector each. Grid: blocks of keys, key heads times fours of queries, items.
//
// Consts beside those of the frame: KEYS (of a block, one a thread); WHOLE (one block has all keys, and writes results; otherwise
// results before they are divided, largest scores and sums are left to attention_merge).

const THREADS: u32 = KEYS;
// Vectors that a block leaves: results of four queries, their largest scores, their sums.
const LEFT: u32 = 4u * QUADS + 2u;

var<workgroup> scores: array<vec4<f32>, KEYS>;
var<workgroup> parts: array<vec4<f32>, 4u * THREADS>;

// Vectors lane + 8 c of a query.
fn query(at: u32, lane: u32) -> mat4x4<f32> {
    let i = p.oq / 4u + at + lane;
    return mat4x4<f32>(
        operand4(q[i]),
        operand4(q[i + 8u]),
        operand4(q[i + 16u]),
        operand4(q[i + 24u]),
    );
}

fn dot16(x: mat4x4<f32>, y: mat4x4<f32>) -> f32 {
    return dot(x[0], y[0]) + dot(x[1], y[1]) + dot(x[2], y[2]) + dot(x[3], y[3]);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let b = group.z;
    let kv_head = group.y % p.g;
    let shared_by = p.h / p.g;
    let first = group.x * KEYS;
    let len = key_count(b);
    let count = p.t * shared_by;
    // Behind the last query, it again.
    let n = min(vec4<u32>(group.y / p.g * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(count - 1u));
    let t = n / shared_by;
    let rows = ((b * p.t + t) * p.h + kv_head * shared_by + n % shared_by) * QUADS;
    let end = min(seen_keys(t.x, t.w, len).y, first + KEYS);
    if !WHOLE && first >= end && first > 0u {
        return;
    }
    let stored = (b * p.s * p.g + kv_head) * QUADS;
    let lane = local % 8u;

    let q0 = query(rows.x, lane);
    let q1 = query(rows.y, lane);
    let q2 = query(rows.z, lane);
    let q3 = query(rows.w, lane);
    for (var i = local / 8u; i < KEYS; i += THREADS / 8u) {
        let key = first + i;
        var x = mat4x4<f32>();
        if key < end {
            let at = p.ok / 4u + stored + key * p.g * QUADS + lane;
            x = mat4x4<f32>(key4(at), key4(at + 8u), key4(at + 16u), key4(at + 24u));
        }
        let dots = vec4<f32>(dot16(q0, x), dot16(q1, x), dot16(q2, x), dot16(q3, x));
        let score = sum8(local, dots) * p.scale;
        if lane == 0u {
            scores[i] = visible(score, t, key, len);
        }
    }
    workgroupBarrier();
    let score = scores[local];
    let highest = most8(local, score);
    if lane == 0u {
        parts[local / 8u] = highest;
    }
    workgroupBarrier();
    var most = vec4<f32>(HIDDEN);
    for (var i = 0u; i < THREADS / 8u; i++) {
        most = max(most, parts[i]);
    }
    let weight = weights_of(score, most);
    let weights = sum8(local, weight);
    workgroupBarrier();
    scores[local] = weight;
    if lane == 0u {
        parts[local / 8u] = weights;
    }
    workgroupBarrier();
    var total = vec4<f32>();
    for (var i = 0u; i < THREADS / 8u; i++) {
        total += parts[i];
    }

    let quad = local % QUADS;
    var o0 = vec4<f32>();
    var o1 = vec4<f32>();
    var o2 = vec4<f32>();
    var o3 = vec4<f32>();
    for (var key = first + local / QUADS; key < end; key += THREADS / QUADS) {
        let x = value4(p.ov / 4u + stored + key * p.g * QUADS + quad);
        let w = scores[key - first];
        o0 += w.x * x;
        o1 += w.y * x;
        o2 += w.z * x;
        o3 += w.w * x;
    }
    workgroupBarrier();
    parts[local] = o0;
    parts[THREADS + local] = o1;
    parts[2u * THREADS + local] = o2;
    parts[3u * THREADS + local] = o3;
    workgroupBarrier();
    // From here on a thread has a vector of one query.
    let row = local / QUADS;
    let at = row * THREADS + quad;
    let sum = parts[at] + parts[at + QUADS] + parts[at + 2u * QUADS] + parts[at + 3u * QUADS];
    if WHOLE {
        if group.y / p.g * 4u + row < count {
            out[p.oo / 4u + rows[row] + quad] = sum * inverse(total)[row];
        }
        return;
    }
    let to = ((b * groups.y + group.y) * groups.x + group.x) * LEFT;
    out[to + local] = sum;
    if local == 0u {
        out[to + THREADS] = most;
        out[to + THREADS + 1u] = total;
    }
}
