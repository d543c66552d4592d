// Parameters of the shaders of root-mean-square norms: first elements, rows (R, C), rows an item.
struct Params {
    ox: u32,
    ow: u32,
    os: u32,
    oh: u32,
    oo: u32,
    rows: u32,
    c: u32,
    t: u32,
    eps: f32,
}
var<immediate> p: Params;
