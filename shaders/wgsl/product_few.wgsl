// Products of few rows: bound by reading the weights, each of which is read once for four rows.
// 64 threads are 4 columns by 16 lanes that walk along the summands together. Grid: columns
// folded into two axes, blocks of four rows. Only one item and one phase.
var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let deep = depth(0u);
    let lane = local % 16u;
    let n = folded(group, groups) * 4u + local / 16u;
    let m = group.z * 4u;
    var sum = vec4<f32>();
    for (var k = lane * 4u; k < deep; k += 64u) {
        let b = right4(0u, n, k, deep);
        sum += vec4<f32>(
            dot(left4(0u, m, k, deep), b),
            dot(left4(0u, m + 1u, k, deep), b),
            dot(left4(0u, m + 2u, k, deep), b),
            dot(left4(0u, m + 3u, k, deep), b),
        );
    }
    sums[local] = sum;
    for (var half = 8u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            sums[local] += sums[local + half];
        }
    }
    if lane == 0u {
        let total = sums[local];
        store(0u, 0u, m, n, total.x);
        store(0u, 0u, m + 1u, n, total.y);
        store(0u, 0u, m + 2u, n, total.z);
        store(0u, 0u, m + 3u, n, total.w);
    }
}
