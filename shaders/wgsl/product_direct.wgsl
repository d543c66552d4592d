// Products where workgroups have no fast memory of their own and barriers are dear, as on
// software adapters: each of 64 threads sums four rows by four columns straight from the operands
// (of both matrices of a pair). Grid: columns, rows (32 each), item times phase.
@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.z / p.phases;
    let r = group.z % p.phases;
    let end = depth(r);
    let m = group.y * 32u + local / 8u * 4u;
    let n = group.x * 32u + local % 8u * 4u;
    var c = mat4x4<f32>();
    var d = mat4x4<f32>();
    for (var at = at_summand(0u); at.kk < end; at = forward(at, 4u)) {
        let a0 = left4(item, m, at, end);
        let a1 = left4(item, m + 1u, at, end);
        let a2 = left4(item, m + 2u, at, end);
        let a3 = left4(item, m + 3u, at, end);
        let b0 = right4(false, r, n, at, end);
        let b1 = right4(false, r, n + 1u, at, end);
        let b2 = right4(false, r, n + 2u, at, end);
        let b3 = right4(false, r, n + 3u, at, end);
        let b = mat4x4<f32>(b0, b1, b2, b3);
        c += mat4x4<f32>(a0 * b, a1 * b, a2 * b, a3 * b);
        if PAIR {
            let e0 = right4(true, r, n, at, end);
            let e1 = right4(true, r, n + 1u, at, end);
            let e2 = right4(true, r, n + 2u, at, end);
            let e3 = right4(true, r, n + 3u, at, end);
            let e = mat4x4<f32>(e0, e1, e2, e3);
            d += mat4x4<f32>(a0 * e, a1 * e, a2 * e, a3 * e);
        }
    }
    store_rows(item, r, m, n, c, d);
}
