// What blocks of keys left of attention of few queries (see attention_few), made results in the
// order of the blocks. A workgroup has four queries, a thread a vector of one. Grid as there, but
// for the blocks.
//
// Consts: KEYS, CAUSAL, LENGTHS, as there.
@group(0) @binding(0) var<storage, read_write> left: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> lengths: array<i32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

struct Params {
    ol: u32,
    oo: u32,
    t: u32,
    s: u32,
    h: u32,
    g: u32,
    blocks: u32,
}
var<immediate> p: Params;

const QUADS: u32 = 32u;
const LEFT: u32 = 4u * QUADS + 2u;

@compute @workgroup_size(128)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let b = group.z;
    let kv_head = group.y % p.g;
    let shared_by = p.h / p.g;
    let row = local / QUADS;
    let fours = group.y / p.g * 4u;
    let n = fours + row;
    if n >= p.t * shared_by {
        return;
    }
    var len = p.s;
    if LENGTHS {
        len = u32(clamp(lengths[p.ol + b], 0, i32(p.s)));
    }
    if CAUSAL {
        // What the last of the four sees: blocks beyond left nothing.
        let last = min(fours + 3u, p.t * shared_by - 1u) / shared_by;
        len = u32(clamp(i32(last) + i32(len) - i32(p.t) + 1, 0, i32(len)));
    }
    let first = (b * groups.y + group.y) * p.blocks * LEFT;
    var most = -1e30;
    var total = 0.0;
    var sum = vec4<f32>();
    for (var i = 0u; i == 0u || i * KEYS < len; i++) {
        let at = first + i * LEFT;
        let next = max(most, left[at + 4u * QUADS][row]);
        let before = exp_of(most - next);
        let now = exp_of(left[at + 4u * QUADS][row] - next);
        total = total * before + left[at + 4u * QUADS + 1u][row] * now;
        sum = sum * before + left[at + local] * now;
        most = next;
    }
    let y = select(vec4<f32>(), sum / max(total, 1e-30), total > 0.0);
    let t = n / shared_by;
    out[p.oo / 4u + ((b * p.t + t) * p.h + kv_head * shared_by + n % shared_by) * QUADS + local % QUADS] = y;
}
