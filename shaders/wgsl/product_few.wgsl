// Products of few rows, bound by reading the weights: each is read once, strictly forward, and
// decoded once for all rows. 64 threads are 4 pairs of columns by 16 lanes that walk along the
// summands together; of a pair of matrices both columns have the same number. One item, phase
// and tap. Grid: pairs of columns by fours, folded into two axes.
//
// Const ROWS, up to 16: rows that are summed; the product may have fewer.
const THREADS: u32 = 64u;

// Sums of one step, of both columns, for rows m .. m + 4.
struct Step {
    s: vec4<f32>,
    t: vec4<f32>,
}

fn rows4(m: u32, k: u32, v: mat2x4<f32>, w: mat2x4<f32>, sum: Step) -> Step {
    var next = sum;
    let row = row1(m, k, v, w);
    next.s.x += row.x;
    next.t.x += row.y;
    if m + 1u < ROWS {
        let row = row1(m + 1u, k, v, w);
        next.s.y += row.x;
        next.t.y += row.y;
    }
    if m + 2u < ROWS {
        let row = row1(m + 2u, k, v, w);
        next.s.z += row.x;
        next.t.z += row.y;
    }
    if m + 3u < ROWS {
        let row = row1(m + 3u, k, v, w);
        next.s.w += row.x;
        next.t.w += row.y;
    }
    return next;
}

fn row1(m: u32, k: u32, v: mat2x4<f32>, w: mat2x4<f32>) -> vec2<f32> {
    // Rows that the product does not have are never written.
    let row = min(m, p.rows - 1u);
    let a = few_left(row, k);
    var sums = vec2<f32>(dot(a, v[0]), dot(a, w[0]));
    if STEP == 8u {
        let b = few_left(row, k + 4u);
        sums += vec2<f32>(dot(b, v[1]), dot(b, w[1]));
    }
    return sums;
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % 16u;
    let pair = folded(group, groups) * 4u + local / 16u;
    let n = select(pair * 2u, pair, PAIR);
    // Columns that are not there read the last one and are never written.
    let near = min(n, p.n - 1u);
    let far = select(min(n + 1u, p.n - 1u), near, PAIR);
    var sum0 = Step(); var sum1 = Step(); var sum2 = Step(); var sum3 = Step();
    for (var k = lane * STEP; k < p.cin; k += 16u * STEP) {
        let v = few_right(false, near, k);
        let w = few_right(PAIR, far, k);
        sum0 = rows4(0u, k, v, w, sum0);
        if ROWS > 4u { sum1 = rows4(4u, k, v, w, sum1); }
        if ROWS > 8u { sum2 = rows4(8u, k, v, w, sum2); }
        if ROWS > 12u { sum3 = rows4(12u, k, v, w, sum3); }
    }
    if ROWS <= 2u {
        let total = sum16(local, vec4<f32>(sum0.s.xy, sum0.t.xy));
        write_rows(lane, 0u, n, vec4<f32>(total.xy, 0.0, 0.0), vec4<f32>(total.zw, 0.0, 0.0));
        return;
    }
    write_rows(lane, 0u, n, sum16(local, sum0.s), sum16(local, sum0.t));
    if ROWS > 4u { write_rows(lane, 4u, n, sum16(local, sum1.s), sum16(local, sum1.t)); }
    if ROWS > 8u { write_rows(lane, 8u, n, sum16(local, sum2.s), sum16(local, sum2.t)); }
    if ROWS > 12u { write_rows(lane, 12u, n, sum16(local, sum3.s), sum16(local, sum3.t)); }
}

// Lane m writes row m.
fn write_rows(lane: u32, first: u32, n: u32, s: vec4<f32>, t: vec4<f32>) {
    if lane < first || lane >= min(first + 4u, p.rows) || n >= p.n {
        return;
    }
    let y = s[lane - first];
    let z = t[lane - first];
    let at = p.oo + lane * p.stride + n;
    if PAIR {
        out[at] = silu_of(y) * z;
        return;
    }
    let added = bias4(n);
    out[at] = y + added.x;
    if n + 1u < p.n {
        out[at + 1u] = z + added.y;
    }
}
