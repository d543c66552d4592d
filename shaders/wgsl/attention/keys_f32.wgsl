// Keys and values in f32, four elements at a time.
@group(0) @binding(1) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> v: array<vec4<f32>>;

fn key4(i: u32) -> vec4<f32> {
    return operand4(k[i]);
}

fn value4(i: u32) -> vec4<f32> {
    return operand4(v[i]);
}
