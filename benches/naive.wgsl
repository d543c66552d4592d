// The plainest product: out (M, N) = x (M, K) times w (N, K) transposed, one thread per sum.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

const M: u32 = 512u;
const N: u32 = 512u;
const K: u32 = 512u;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= N || id.y >= M {
        return;
    }
    var sum = 0.0;
    for (var k = 0u; k < K; k++) {
        sum += x[id.y * K + k] * w[id.x * K + k];
    }
    out[id.y * N + id.x] = sum;
}
