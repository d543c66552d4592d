// Parameters of the shaders of rotary embeddings: first elements, heads in all, extents of (T, H, D).
struct Params {
    ox: u32,
    ow: u32,
    oc: u32,
    os: u32,
    oo: u32,
    heads: u32,
    h: u32,
    t: u32,
    d: u32,
    per_item: u32,
    eps: f32,
}
var<immediate> p: Params;
