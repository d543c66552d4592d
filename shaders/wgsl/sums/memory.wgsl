// Sums over the threads of a workgroup, through workgroup memory. Const THREADS: a power of 2, at
// least 16. Every thread takes part.
var<workgroup> sums: array<vec4<f32>, THREADS>;

// The sum over 16 neighbours, for each of them.
fn sum16(local: u32, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    sums[local] = x;
    for (var half = 8u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local % 16u < half {
            sums[local] += sums[local + half];
        }
    }
    workgroupBarrier();
    return sums[local & ~15u];
}

// The sum over all threads.
fn sum_all(local: u32, x: f32) -> f32 {
    workgroupBarrier();
    sums[local].x = x;
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if local < half {
            sums[local].x += sums[local + half].x;
        }
    }
    workgroupBarrier();
    return sums[0].x;
}
