// Sums over the threads of a workgroup: eight neighbours exchange values, which lie in one subgroup
// on every device whose subgroups have eight threads or more, the rest goes through workgroup
// memory. Const THREADS: a power of 2, at least 16. Every thread takes part.
var<workgroup> sums: array<vec4<f32>, THREADS / 8u>;

// The sum over 16 neighbours, for each of them.
fn sum16(local: u32, x: vec4<f32>) -> vec4<f32> {
    var y = x + subgroupShuffleXor(x, 1u);
    y += subgroupShuffleXor(y, 2u);
    y += subgroupShuffleXor(y, 4u);
    workgroupBarrier();
    if local % 8u == 0u {
        sums[local / 8u] = y;
    }
    workgroupBarrier();
    let first = local / 16u * 2u;
    return sums[first] + sums[first + 1u];
}

// The sum over all threads.
fn sum_all(local: u32, x: f32) -> f32 {
    var y = x + subgroupShuffleXor(x, 1u);
    y += subgroupShuffleXor(y, 2u);
    y += subgroupShuffleXor(y, 4u);
    workgroupBarrier();
    if local % 8u == 0u {
        sums[local / 8u].x = y;
    }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < THREADS / 8u; i++) {
        total += sums[i].x;
    }
    return total;
}
