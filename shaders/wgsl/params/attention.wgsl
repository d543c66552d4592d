// Parameters of the shaders of attention: first elements, queries, keys, heads, key heads.
struct Params {
    oq: u32,
    ok: u32,
    ov: u32,
    ol: u32,
    oo: u32,
    t: u32,
    s: u32,
    h: u32,
    g: u32,
    window: u32,
    scale: f32,
}
var<immediate> p: Params;
