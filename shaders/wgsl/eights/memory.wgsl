// Largest values and sums over eight neighbouring threads, for each of them, through workgroup
// memory. Const THREADS: a multiple of 8. Every thread takes part.
var<workgroup> eights: array<vec4<f32>, THREADS>;

fn most8(local: u32, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    eights[local] = x;
    workgroupBarrier();
    let first = local & ~7u;
    var most = x;
    for (var i = 0u; i < 8u; i++) {
        most = max(most, eights[first + i]);
    }
    return most;
}

fn sum8(local: u32, x: vec4<f32>) -> vec4<f32> {
    workgroupBarrier();
    eights[local] = x;
    workgroupBarrier();
    let first = local & ~7u;
    var sum = vec4<f32>();
    for (var i = 0u; i < 8u; i++) {
        sum += eights[first + i];
    }
    return sum;
}
