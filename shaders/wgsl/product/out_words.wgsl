// Sums written one at a time; `left` columns are left in the row.
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn write4(at: u32, left: u32, y: vec4<f32>) {
    out[at] = y.x;
    if left > 1u {
        out[at + 1u] = y.y;
    }
    if left > 2u {
        out[at + 2u] = y.z;
    }
    if left > 3u {
        out[at + 3u] = y.w;
    }
}
