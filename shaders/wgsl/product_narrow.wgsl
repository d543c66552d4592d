// Products of many rows with at most four columns (the last convolution of a decoder), bound by
// reading the rows. 64 threads are 4 blocks of four rows by 16 lanes that walk along the summands
// together. One phase. Grid: rows by 16, folded into two axes; item. Const COLUMNS.
const THREADS: u32 = 64u;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let lane = local % 16u;
    let m = (folded(group, groups) * 4u + local / 16u) * 4u;
    let end = depth(0u);
    var c = mat4x4<f32>();
    for (var at = at_summand(lane * 4u); at.kk < end; at = forward(at, 64u)) {
        var b = mat4x4<f32>();
        b[0] = right4(false, 0u, 0u, at, end);
        if COLUMNS > 1u { b[1] = right4(false, 0u, 1u, at, end); }
        if COLUMNS > 2u { b[2] = right4(false, 0u, 2u, at, end); }
        if COLUMNS > 3u { b[3] = right4(false, 0u, 3u, at, end); }
        c += mat4x4<f32>(
            left4(group.z, m, at, end) * b,
            left4(group.z, m + 1u, at, end) * b,
            left4(group.z, m + 2u, at, end) * b,
            left4(group.z, m + 3u, at, end) * b,
        );
    }
    let y0 = sum16(local, c[0]);
    let y1 = sum16(local, c[1]);
    let y2 = sum16(local, c[2]);
    let y3 = sum16(local, c[3]);
    if lane == 0u {
        store4(p.oo, group.z, 0u, m, 0u, y0);
        store4(p.oo, group.z, 0u, m + 1u, 0u, y1);
        store4(p.oo, group.z, 0u, m + 2u, 0u, y2);
        store4(p.oo, group.z, 0u, m + 3u, 0u, y3);
    }
}
