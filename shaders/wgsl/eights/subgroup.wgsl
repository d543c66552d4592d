// Largest values and sums over eight neighbouring threads, for each of them, which lie in one
// subgroup on every device whose subgroups have eight threads or more. Every thread takes part.
fn most8(local: u32, x: vec4<f32>) -> vec4<f32> {
    var most = max(x, subgroupShuffleXor(x, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    return max(most, subgroupShuffleXor(most, 4u));
}

fn sum8(local: u32, x: vec4<f32>) -> vec4<f32> {
    var sum = x + subgroupShuffleXor(x, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    return sum + subgroupShuffleXor(sum, 4u);
}
