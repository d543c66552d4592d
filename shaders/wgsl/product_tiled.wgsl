// Products of many rows: tiles of 64 rows by 64 columns, 16 summands at a time through workgroup
// memory. Each of 64 threads sums 8 by 8: rows ty*4.. and ty*4+32.., columns tx*4.. and tx*4+32...
// Grid: columns, rows, item times phase. Sums are named, not indexed, so that they stay in
// registers.
var<workgroup> sa: array<vec4<f32>, 256>; // [k * 16 + m / 4][m % 4]
var<workgroup> sb: array<vec4<f32>, 256>; // [k * 16 + n / 4][n % 4]

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let item = group.z / p.phases;
    let r = group.z % p.phases;
    let deep = depth(r);
    let m0 = group.y * 64u;
    let n0 = group.x * 64u;
    let tx = local % 8u;
    let ty = local / 8u;
    let quad = local % 4u;
    let line = local / 4u;
    var c00 = vec4<f32>(); var c01 = vec4<f32>();
    var c10 = vec4<f32>(); var c11 = vec4<f32>();
    var c20 = vec4<f32>(); var c21 = vec4<f32>();
    var c30 = vec4<f32>(); var c31 = vec4<f32>();
    var c40 = vec4<f32>(); var c41 = vec4<f32>();
    var c50 = vec4<f32>(); var c51 = vec4<f32>();
    var c60 = vec4<f32>(); var c61 = vec4<f32>();
    var c70 = vec4<f32>(); var c71 = vec4<f32>();
    for (var k0 = 0u; k0 < deep; k0 += 16u) {
        workgroupBarrier();
        for (var i = 0u; i < 64u; i += 16u) {
            let at = i + line;
            let a = left4(item, m0 + at, k0 + quad * 4u, deep);
            let b = right4(r, n0 + at, k0 + quad * 4u, deep);
            let base = quad * 64u + at / 4u;
            let part = at % 4u;
            sa[base][part] = a.x;
            sa[base + 16u][part] = a.y;
            sa[base + 32u][part] = a.z;
            sa[base + 48u][part] = a.w;
            sb[base][part] = b.x;
            sb[base + 16u][part] = b.y;
            sb[base + 32u][part] = b.z;
            sb[base + 48u][part] = b.w;
        }
        workgroupBarrier();
        for (var k = 0u; k < 256u; k += 16u) {
            let a0 = sa[k + ty];
            let a1 = sa[k + ty + 8u];
            let b0 = sb[k + tx];
            let b1 = sb[k + tx + 8u];
            c00 += a0.x * b0; c01 += a0.x * b1;
            c10 += a0.y * b0; c11 += a0.y * b1;
            c20 += a0.z * b0; c21 += a0.z * b1;
            c30 += a0.w * b0; c31 += a0.w * b1;
            c40 += a1.x * b0; c41 += a1.x * b1;
            c50 += a1.y * b0; c51 += a1.y * b1;
            c60 += a1.z * b0; c61 += a1.z * b1;
            c70 += a1.w * b0; c71 += a1.w * b1;
        }
    }
    let m = m0 + ty * 4u;
    let n = n0 + tx * 4u;
    store8(item, r, m, n, c00, c01);
    store8(item, r, m + 1u, n, c10, c11);
    store8(item, r, m + 2u, n, c20, c21);
    store8(item, r, m + 3u, n, c30, c31);
    store8(item, r, m + 32u, n, c40, c41);
    store8(item, r, m + 33u, n, c50, c51);
    store8(item, r, m + 34u, n, c60, c61);
    store8(item, r, m + 35u, n, c70, c71);
}

fn store8(item: u32, r: u32, m: u32, n: u32, near: vec4<f32>, far: vec4<f32>) {
    store(item, r, m, n, near.x);
    store(item, r, m, n + 1u, near.y);
    store(item, r, m, n + 2u, near.z);
    store(item, r, m, n + 3u, near.w);
    store(item, r, m, n + 32u, far.x);
    store(item, r, m, n + 33u, far.y);
    store(item, r, m, n + 34u, far.z);
    store(item, r, m, n + 35u, far.w);
}
