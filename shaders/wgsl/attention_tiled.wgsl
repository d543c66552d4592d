// Attention of many queries, heads of 128: a workgroup has ROWS queries of one head and walks over
// blocks of 64 keys, as two products by tiles. 2 ROWS threads are ROWS/8 by 16; each holds the
// scores of 8 queries and 4 keys, then the results of 8 queries and 8 elements. Grid: blocks of
// queries, heads, items. Hidden keys are not read but for those that share a block with visible
// ones.
//
// Consts beside those of the frame: ROWS (32 or 64), THREADS (2 ROWS).

const KEYS: u32 = 64u;
// Elements of a head that are staged at a time for the scores; values for the results.
const DEPTH: u32 = 32u;
const VALUES: u32 = ROWS / 4u;
// Vectors from row to row of the tiles; one is left free, so that neighbours differ in banks.
const Q_ROW: u32 = ROWS / 4u + 1u;
const K_ROW: u32 = KEYS / 4u + 1u;
// Tiles: queries and keys by element, vectors of rows; then weights by key, vectors of queries,
// and values.
const K_AT: u32 = DEPTH * Q_ROW;
const V_AT: u32 = KEYS * Q_ROW;
const TILE: u32 = max(K_AT + DEPTH * K_ROW, V_AT + VALUES * QUADS);

var<workgroup> tile: array<vec4<f32>, TILE>;

// Elements of a row, one below the other.
fn stage(at: u32, stride: u32, row: u32, x: vec4<f32>) {
    let i = at + row / 4u;
    let c = row % 4u;
    tile[i][c] = x.x;
    tile[i + stride][c] = x.y;
    tile[i + 2u * stride][c] = x.z;
    tile[i + 3u * stride][c] = x.w;
}

// Largest scores of the queries of 16 threads.
fn most_of16(local: u32, a: vec4<f32>, b: vec4<f32>) -> array<vec4<f32>, 2> {
    let a8 = most8(local, a);
    let b8 = most8(local, b);
    // The tile of queries and keys is not needed any more.
    workgroupBarrier();
    if local % 8u == 0u {
        tile[V_AT + local / 4u] = a8;
        tile[V_AT + local / 4u + 1u] = b8;
    }
    workgroupBarrier();
    let first = V_AT + local / 16u * 4u;
    return array<vec4<f32>, 2>(
        max(tile[first], tile[first + 2u]),
        max(tile[first + 1u], tile[first + 3u]),
    );
}

// Sums of the queries of 16 threads.
fn sums16(local: u32, a: vec4<f32>, b: vec4<f32>) -> array<vec4<f32>, 2> {
    let a8 = sum8(local, a);
    let b8 = sum8(local, b);
    workgroupBarrier();
    if local % 8u == 0u {
        tile[local / 4u] = a8;
        tile[local / 4u + 1u] = b8;
    }
    workgroupBarrier();
    let first = local / 16u * 4u;
    return array<vec4<f32>, 2>(tile[first] + tile[first + 2u], tile[first + 1u] + tile[first + 3u]);
}

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let b = group.z;
    let head = group.y;
    let kv_head = head / (p.h / p.g);
    let first = group.x * ROWS;
    let last = min(first + ROWS, p.t) - 1u;
    let ty = local / 16u;
    let tx = local % 16u;
    let ta = vec4<u32>(first + ty * 8u) + vec4<u32>(0u, 1u, 2u, 3u);
    let tb = ta + 4u;
    let len = key_count(b);
    let keys = seen_keys(first, last, len);
    let back = i32(len) - i32(p.t);
    let queries = p.oq / 4u + (b * p.t * p.h + head) * QUADS;
    let stored = (b * p.s * p.g + kv_head) * QUADS;

    var most_a = vec4<f32>(HIDDEN);
    var most_b = vec4<f32>(HIDDEN);
    // Of this thread's keys alone.
    var total_a = vec4<f32>();
    var total_b = vec4<f32>();
    // Two vectors of the results of each query.
    var xo0 = vec4<f32>();
    var xo1 = vec4<f32>();
    var xo2 = vec4<f32>();
    var xo3 = vec4<f32>();
    var xo4 = vec4<f32>();
    var xo5 = vec4<f32>();
    var xo6 = vec4<f32>();
    var xo7 = vec4<f32>();
    var yo0 = vec4<f32>();
    var yo1 = vec4<f32>();
    var yo2 = vec4<f32>();
    var yo3 = vec4<f32>();
    var yo4 = vec4<f32>();
    var yo5 = vec4<f32>();
    var yo6 = vec4<f32>();
    var yo7 = vec4<f32>();
    for (var start = keys.x; start < keys.y; start += KEYS) {
        // Scores of four keys and twice four queries.
        var a0 = vec4<f32>();
        var a1 = vec4<f32>();
        var a2 = vec4<f32>();
        var a3 = vec4<f32>();
        var b0 = vec4<f32>();
        var b1 = vec4<f32>();
        var b2 = vec4<f32>();
        var b3 = vec4<f32>();
        for (var depth = 0u; depth < QUADS; depth += DEPTH / 4u) {
            workgroupBarrier();
            for (var i = local; i < ROWS * DEPTH / 4u; i += THREADS) {
                let row = i / 2u % ROWS;
                let quad = i / (2u * ROWS) * 2u + i % 2u;
                let t = min(first + row, last);
                let x = operand4(q[queries + t * p.h * QUADS + depth + quad]);
                stage(quad * 4u * Q_ROW, Q_ROW, row, x);
            }
            for (var i = local; i < KEYS * DEPTH / 4u; i += THREADS) {
                let row = i / 2u % KEYS;
                let quad = i / (2u * KEYS) * 2u + i % 2u;
                let key = start + row;
                var x = vec4<f32>();
                if key < keys.y {
                    x = key4(p.ok / 4u + stored + key * p.g * QUADS + depth + quad);
                }
                stage(K_AT + quad * 4u * K_ROW, K_ROW, row, x);
            }
            workgroupBarrier();
            for (var d = 0u; d < DEPTH; d++) {
                let qa = tile[d * Q_ROW + ty * 2u];
                let qb = tile[d * Q_ROW + ty * 2u + 1u];
                let key = tile[K_AT + d * K_ROW + tx];
                a0 += qa * key.x;
                b0 += qb * key.x;
                a1 += qa * key.y;
                b1 += qb * key.y;
                a2 += qa * key.z;
                b2 += qb * key.z;
                a3 += qa * key.w;
                b3 += qb * key.w;
            }
        }
        a0 *= p.scale;
        a1 *= p.scale;
        a2 *= p.scale;
        a3 *= p.scale;
        b0 *= p.scale;
        b1 *= p.scale;
        b2 *= p.scale;
        b3 *= p.scale;
        let key = start + tx * 4u;
        var edge = start + KEYS > keys.y;
        if CAUSAL {
            edge = edge || i32(start + KEYS) > i32(first) + back + 1;
        }
        if WINDOW {
            edge = edge || start + p.window < last || start + KEYS - 1u > first + p.window;
        }
        if edge {
            a0 = visible(a0, ta, key, len);
            a1 = visible(a1, ta, key + 1u, len);
            a2 = visible(a2, ta, key + 2u, len);
            a3 = visible(a3, ta, key + 3u, len);
            b0 = visible(b0, tb, key, len);
            b1 = visible(b1, tb, key + 1u, len);
            b2 = visible(b2, tb, key + 2u, len);
            b3 = visible(b3, tb, key + 3u, len);
        }
        let most = most_of16(
            local,
            max(most_a, max(max(a0, a1), max(a2, a3))),
            max(most_b, max(max(b0, b1), max(b2, b3))),
        );
        let shrink_a = exp4_of(most_a - most[0]);
        let shrink_b = exp4_of(most_b - most[1]);
        most_a = most[0];
        most_b = most[1];
        a0 = weights_of(a0, most_a);
        a1 = weights_of(a1, most_a);
        a2 = weights_of(a2, most_a);
        a3 = weights_of(a3, most_a);
        b0 = weights_of(b0, most_b);
        b1 = weights_of(b1, most_b);
        b2 = weights_of(b2, most_b);
        b3 = weights_of(b3, most_b);
        total_a = total_a * shrink_a + (a0 + a1 + a2 + a3);
        total_b = total_b * shrink_b + (b0 + b1 + b2 + b3);
        // Key tx 4 + j lies in row j 16 + tx, so that neighbours write to neighbouring rows.
        let put = tx * Q_ROW + ty * 2u;
        tile[put] = a0;
        tile[put + 1u] = b0;
        tile[put + 16u * Q_ROW] = a1;
        tile[put + 16u * Q_ROW + 1u] = b1;
        tile[put + 32u * Q_ROW] = a2;
        tile[put + 32u * Q_ROW + 1u] = b2;
        tile[put + 48u * Q_ROW] = a3;
        tile[put + 48u * Q_ROW + 1u] = b3;
        xo0 *= shrink_a.x;
        xo1 *= shrink_a.y;
        xo2 *= shrink_a.z;
        xo3 *= shrink_a.w;
        xo4 *= shrink_b.x;
        xo5 *= shrink_b.y;
        xo6 *= shrink_b.z;
        xo7 *= shrink_b.w;
        yo0 *= shrink_a.x;
        yo1 *= shrink_a.y;
        yo2 *= shrink_a.z;
        yo3 *= shrink_a.w;
        yo4 *= shrink_b.x;
        yo5 *= shrink_b.y;
        yo6 *= shrink_b.z;
        yo7 *= shrink_b.w;
        for (var at = 0u; at < KEYS; at += VALUES) {
            workgroupBarrier();
            for (var i = local; i < VALUES * QUADS; i += THREADS) {
                let row = at + i / QUADS;
                let key = start + row % 16u * 4u + row / 16u;
                var x = vec4<f32>();
                if key < keys.y {
                    x = value4(p.ov / 4u + stored + key * p.g * QUADS + i % QUADS);
                }
                tile[V_AT + i] = x;
            }
            workgroupBarrier();
            for (var i = 0u; i < VALUES; i++) {
                let wa = tile[(at + i) * Q_ROW + ty * 2u];
                let wb = tile[(at + i) * Q_ROW + ty * 2u + 1u];
                let x = tile[V_AT + i * QUADS + tx];
                let y = tile[V_AT + i * QUADS + 16u + tx];
                xo0 += wa.x * x;
                yo0 += wa.x * y;
                xo1 += wa.y * x;
                yo1 += wa.y * y;
                xo2 += wa.z * x;
                yo2 += wa.z * y;
                xo3 += wa.w * x;
                yo3 += wa.w * y;
                xo4 += wb.x * x;
                yo4 += wb.x * y;
                xo5 += wb.y * x;
                yo5 += wb.y * y;
                xo6 += wb.z * x;
                yo6 += wb.z * y;
                xo7 += wb.w * x;
                yo7 += wb.w * y;
            }
        }
    }
    let total = sums16(local, total_a, total_b);
    let ra = inverse(total[0]);
    let rb = inverse(total[1]);
    let to = p.oo / 4u + ((b * p.t + ta.x) * p.h + head) * QUADS + tx;
    if ta.x < p.t {
        write(to, xo0 * ra.x, yo0 * ra.x);
    }
    if ta.x + 1u < p.t {
        write(to + 1u * p.h * QUADS, xo1 * ra.y, yo1 * ra.y);
    }
    if ta.x + 2u < p.t {
        write(to + 2u * p.h * QUADS, xo2 * ra.z, yo2 * ra.z);
    }
    if ta.x + 3u < p.t {
        write(to + 3u * p.h * QUADS, xo3 * ra.w, yo3 * ra.w);
    }
    if ta.x + 4u < p.t {
        write(to + 4u * p.h * QUADS, xo4 * rb.x, yo4 * rb.x);
    }
    if ta.x + 5u < p.t {
        write(to + 5u * p.h * QUADS, xo5 * rb.y, yo5 * rb.y);
    }
    if ta.x + 6u < p.t {
        write(to + 6u * p.h * QUADS, xo6 * rb.z, yo6 * rb.z);
    }
    if ta.x + 7u < p.t {
        write(to + 7u * p.h * QUADS, xo7 * rb.w, yo7 * rb.w);
    }
}

fn write(at: u32, x: vec4<f32>, y: vec4<f32>) {
    out[at] = x;
    out[at + 16u] = y;
}
