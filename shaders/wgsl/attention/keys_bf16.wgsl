// Keys and values in bf16 (a cache), four elements at a time.
@group(0) @binding(1) var<storage, read_write> k: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read_write> v: array<vec2<u32>>;

fn widened(raw: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(bf16_low(raw.x), bf16_high(raw.x), bf16_low(raw.y), bf16_high(raw.y));
}

fn key4(i: u32) -> vec4<f32> {
    return widened(k[i]);
}

fn value4(i: u32) -> vec4<f32> {
    return widened(v[i]);
}
