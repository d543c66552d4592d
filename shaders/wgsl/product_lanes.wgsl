// Products where reading is dear and an exchange between threads is not, as on software adapters:
// each of eight threads, which lie in one subgroup, reads one row, which all of them are given,
// and sums eight rows by four columns of its own (of both matrices of a pair). Grid: columns by
// 32, rows by 8, item times phase.

// The sums of one row, four summands further.
fn further(sums: vec4<f32>, a: vec4<f32>, b: mat4x4<f32>) -> vec4<f32> {
    return sums + a.x * b[0] + a.y * b[1] + a.z * b[2] + a.w * b[3];
}

// The sums of four rows.
fn further4(sums: mat4x4<f32>, a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        further(sums[0], a[0], b),
        further(sums[1], a[1], b),
        further(sums[2], a[2], b),
        further(sums[3], a[3], b),
    );
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
        let a = mat4x4<f32>(
            subgroupBroadcast(mine, 0u),
            subgroupBroadcast(mine, 1u),
            subgroupBroadcast(mine, 2u),
            subgroupBroadcast(mine, 3u),
        );
        let a4 = mat4x4<f32>(
            subgroupBroadcast(mine, 4u),
            subgroupBroadcast(mine, 5u),
            subgroupBroadcast(mine, 6u),
            subgroupBroadcast(mine, 7u),
        );
        let b = columns4(false, r, n, at, end);
        c = further4(c, a, b);
        c4 = further4(c4, a4, b);
        if PAIR {
            let e = columns4(true, r, n, at, end);
            d = further4(d, a, e);
            d4 = further4(d4, a4, e);
        }
    }
    store_rows(item, r, m, n, c, d);
    store_rows(item, r, m + 4u, n, c4, d4);
}
