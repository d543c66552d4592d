// Sums written four at a time: columns and offsets are multiples of 4.
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

fn write4(at: u32, left: u32, y: vec4<f32>) {
    out[at >> 2u] = y;
}
