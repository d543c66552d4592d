// Products of many rows: tiles of BM rows by BN columns, 16 summands at a time through workgroup
// memory, the next ones being read while the present ones are multiplied. THREADS = TX by TX;
// each sums one or two groups of four rows (BM = 4 TX or 8 TX) by one or two groups of four
// columns. A pair of matrices has BN / 2 columns, of which a thread has both sums.
//
// Grid: columns, rows, item times phase times SPLITS. With SPLITS > 1 each workgroup sums a share
// of the summands, and out is one output per share, which `product_sum.wgsl` adds up.
//
// Consts: BM, BN, TX, SPLITS. Sums are matrices, not arrays, so that they stay in registers.
const THREADS: u32 = TX * TX;
const LINES: u32 = THREADS / 4u; // rows of a tile that are read at once
const AM: u32 = BM / 4u;
const AN: u32 = BN / 4u;
const TALL: bool = BM == 8u * TX;
const WIDE: bool = BN == 8u * TX;

// Operand k of row m lies at [k AM + (m / 4 ^ k / 4 * 2)][m % 4]: neither writing a quad of
// summands down a column nor reading along rows meets a bank of the memory twice.
var<workgroup> sa: array<vec4<f32>, 16u * AM>;
var<workgroup> sb: array<vec4<f32>, 16u * AN>;

fn put_a(quad: u32, row: u32, v: vec4<f32>) {
    let at = quad * BM + ((row >> 2u) ^ (quad * 2u));
    let part = row & 3u;
    sa[at][part] = v.x;
    sa[at + AM][part] = v.y;
    sa[at + 2u * AM][part] = v.z;
    sa[at + 3u * AM][part] = v.w;
}

fn put_b(quad: u32, row: u32, v: vec4<f32>) {
    let at = quad * BN + ((row >> 2u) ^ (quad * 2u));
    let part = row & 3u;
    sb[at][part] = v.x;
    sb[at + AN][part] = v.y;
    sb[at + 2u * AN][part] = v.z;
    sb[at + 3u * AN][part] = v.w;
}

// What a thread reads for a tile: up to four quads, LINES rows apart.
struct Quads {
    v0: vec4<f32>,
    v1: vec4<f32>,
    v2: vec4<f32>,
    v3: vec4<f32>,
}

fn read_a(item: u32, m: u32, at: At, end: u32) -> Quads {
    var quads = Quads();
    quads.v0 = left4(item, m, at, end);
    if BM > LINES { quads.v1 = left4(item, m + LINES, at, end); }
    if BM > 2u * LINES { quads.v2 = left4(item, m + 2u * LINES, at, end); }
    if BM > 3u * LINES { quads.v3 = left4(item, m + 3u * LINES, at, end); }
    return quads;
}

fn read_b(r: u32, n0: u32, line: u32, at: At, end: u32) -> Quads {
    var quads = Quads();
    quads.v0 = column4(r, n0, line, at, end);
    if BN > LINES { quads.v1 = column4(r, n0, line + LINES, at, end); }
    if BN > 2u * LINES { quads.v2 = column4(r, n0, line + 2u * LINES, at, end); }
    if BN > 3u * LINES { quads.v3 = column4(r, n0, line + 3u * LINES, at, end); }
    return quads;
}

// The weights of column `at` of the tile.
fn column4(r: u32, n0: u32, at: u32, k: At, end: u32) -> vec4<f32> {
    if PAIR {
        let second = at >= BN / 2u;
        return right4(second, r, n0 + select(at, at - BN / 2u, second), k, end);
    }
    return right4(false, r, n0 + at, k, end);
}

// Rows by columns.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let share = group.z % SPLITS;
    let item = group.z / SPLITS / p.phases;
    let r = group.z / SPLITS % p.phases;
    let whole = depth(r);
    let shared_depth = (whole + 16u * SPLITS - 1u) / (16u * SPLITS) * 16u;
    let begin = share * shared_depth;
    let end = min(whole, begin + shared_depth);
    // Eight row tiles walk along the columns together, so that weights are read once for them.
    let id = group.y * groups.x + group.x;
    let first = id / (8u * groups.x) * 8u;
    let high = min(groups.y - first, 8u);
    let m0 = (first + id % (8u * groups.x) % high) * BM;
    let n0 = id % (8u * groups.x) / high * select(BN, BN / 2u, PAIR);

    let tx = local % TX;
    let ty = local / TX;
    let quad = local % 4u;
    let line = local / 4u;
    var c00 = mat4x4<f32>(); var c01 = mat4x4<f32>();
    var c10 = mat4x4<f32>(); var c11 = mat4x4<f32>();
    var at = at_summand(begin + quad * 4u);
    var a = read_a(item, m0 + line, at, end);
    var b = read_b(r, n0, line, at, end);
    for (var k = begin; k < end; k += 16u) {
        workgroupBarrier();
        put_a(quad, line, a.v0);
        if BM > LINES { put_a(quad, line + LINES, a.v1); }
        if BM > 2u * LINES { put_a(quad, line + 2u * LINES, a.v2); }
        if BM > 3u * LINES { put_a(quad, line + 3u * LINES, a.v3); }
        put_b(quad, line, b.v0);
        if BN > LINES { put_b(quad, line + LINES, b.v1); }
        if BN > 2u * LINES { put_b(quad, line + 2u * LINES, b.v2); }
        if BN > 3u * LINES { put_b(quad, line + 3u * LINES, b.v3); }
        workgroupBarrier();
        at = forward(at, 16u);
        a = read_a(item, m0 + line, at, end);
        b = read_b(r, n0, line, at, end);
        for (var q = 0u; q < 4u; q++) {
            let ta = q * BM + (ty ^ (q * 2u));
            let tb = q * BN + (tx ^ (q * 2u));
            for (var i = 0u; i < 4u; i++) {
                let a0 = sa[ta + i * AM];
                let b0 = sb[tb + i * AN];
                c00 += outer(a0, b0);
                if WIDE { c01 += outer(a0, sb[tb + i * AN + TX]); }
                if TALL { c10 += outer(sa[ta + i * AM + TX], b0); }
                if TALL && WIDE { c11 += outer(sa[ta + i * AM + TX], sb[tb + i * AN + TX]); }
            }
        }
    }
    let items = groups.z / SPLITS / p.phases;
    let base = p.oo + share * items * p.tout * p.stride;
    let m = m0 + ty * 4u;
    let n = n0 + tx * 4u;
    store_block(base, item, r, m, n, c00, c01);
    if TALL {
        store_block(base, item, r, m + 4u * TX, n, c10, c11);
    }
}

fn store_block(
    base: u32, item: u32, r: u32, m: u32, n: u32, near: mat4x4<f32>, far: mat4x4<f32>,
) {
    store_row(base, item, r, m, n, near[0], far[0]);
    store_row(base, item, r, m + 1u, n, near[1], far[1]);
    store_row(base, item, r, m + 2u, n, near[2], far[2]);
    store_row(base, item, r, m + 3u, n, near[3], far[3]);
}

fn store_row(base: u32, item: u32, r: u32, m: u32, n: u32, near: vec4<f32>, far: vec4<f32>) {
    if PAIR {
        store4(base, item, r, m, n, silu4(near) * far);
        return;
    }
    store4(base, item, r, m, n, near);
    if WIDE {
        store4(base, item, r, m, n + 4u * TX, far);
    }
}
