// The frame of operations that make every element of the output from few elements of the
// inputs; `apply(i)` stands in the operation's own file. n elements, c channels, t rows of an
// item. The output may lie over `a`.
@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read_write> scalars: array<f32>;

struct Params {
    oa: u32,
    ob: u32,
    oc: u32,
    oo: u32,
    n: u32,
    c: u32,
    t: u32,
    sa: u32,
    sb: u32,
}
var<immediate> p: Params;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = folded(group, groups) * 256u + local;
    if i < p.n {
        out[p.oo + i] = apply(i);
    }
}
