// Products where reading is dear and an exchange between threads is not, as on software adapters:
// each of eight threads, which lie in one subgroup, reads one row, which all of them are given,
// and sums eight rows by four columns of its own (of both matrices of a pair). Grid: columns by
// 32, rows by 8, item times phase.

// The sums of one row, four summands further.
fn further(sums: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    return sums + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}

// Weights of four columns: by summand, not by column.
fn columns4(second: bool, r: u32, n: u32, at: At, end: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        right4(second, r, n, at, end),
        right4(second, r, n + 1u, at, end),
        right4(second, r, n + 2u, at, end),
        right4(second, r, n + 3u, at, end),
    ));
}

@compute @workgroup_size(8)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.z / p.phases;
    let r = group.z % p.phases;
    let end = depth(r);
    let m = group.y * 8u;
    let n = group.x * 32u + local * 4u;
    var c = mat4x4<f32>(); var c4 = mat4x4<f32>();
    var d = mat4x4<f32>(); var d4 = mat4x4<f32>();
    for (var at = at_summand(0u); at.kk < end; at = forward(at, 4u)) {
        let mine = left4(item, m + local, at, end);
        let a0 = subgroupBroadcast(mine, 0u);
        let a1 = subgroupBroadcast(mine, 1u);
        let a2 = subgroupBroadcast(mine, 2u);
        let a3 = subgroupBroadcast(mine, 3u);
        let a4 = subgroupBroadcast(mine, 4u);
        let a5 = subgroupBroadcast(mine, 5u);
        let a6 = subgroupBroadcast(mine, 6u);
        let a7 = subgroupBroadcast(mine, 7u);
        let b = columns4(false, r, n, at, end);
        c[0] = further(c[0], a0, b);
        c[1] = further(c[1], a1, b);
        c[2] = further(c[2], a2, b);
        c[3] = further(c[3], a3, b);
        c4[0] = further(c4[0], a4, b);
        c4[1] = further(c4[1], a5, b);
        c4[2] = further(c4[2], a6, b);
        c4[3] = further(c4[3], a7, b);
        if PAIR {
            let e = columns4(true, r, n, at, end);
            d[0] = further(d[0], a0, e);
            d[1] = further(d[1], a1, e);
            d[2] = further(d[2], a2, e);
            d[3] = further(d[3], a3, e);
            d4[0] = further(d4[0], a4, e);
            d4[1] = further(d4[1], a5, e);
            d4[2] = further(d4[2], a6, e);
            d4[3] = further(d4[3], a7, e);
        }
    }
    store_rows(item, r, m, n, c, d);
    store_rows(item, r, m + 4u, n, c4, d4);
}

fn store_rows(item: u32, r: u32, m: u32, n: u32, c: mat4x4<f32>, d: mat4x4<f32>) {
    var y = c;
    if PAIR {
        y = mat4x4<f32>(silu4(c[0]) * d[0], silu4(c[1]) * d[1], silu4(c[2]) * d[2], silu4(c[3]) * d[3]);
    }
    store4(p.oo, item, r, m, n, y[0]);
    store4(p.oo, item, r, m + 1u, n, y[1]);
    store4(p.oo, item, r, m + 2u, n, y[2]);
    store4(p.oo, item, r, m + 3u, n, y[3]);
}
