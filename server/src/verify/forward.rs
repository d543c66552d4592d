//! One evaluation of the diffusion transformer, with its intermediates.

use super::bench::{Bench, compare_known};
use super::golden::Golden;
use super::report::{Kind, Reporter};
use engine::backend::{HostData, HostVec, NoWeights, Outputs};
use engine::models::dit::{self, TimeFrom, VelocityShape};
use engine::models::layer::rope_tables;
use engine::program::{Builder, Math, Op};
use engine::song::loaded::LoadedDit;
use engine::{Error, Result};

/// Compares the velocity and every intermediate the file has; once more with the time rounded as
/// a bf16 run rounds it, where the file has that velocity.
pub fn forward(b: &Bench, g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    let t = g.array("timestep")?.data;
    let start = g.array("timestep_r")?.data;
    if t.len() != start.len() {
        return Err(Error::Corrupt(
            "timestep and timestep_r differ in length".into(),
        ));
    }
    let dt: Vec<f32> = t.iter().zip(&start).map(|(t, r)| t - r).collect();
    let out = evaluate(b, g, dit, &t, &dt, Some(r))?;
    compare_known(g, &out, r, Kind::Velocity)?;
    rope(g, r, dit)?;
    if g.has("velocity_bf16_time") {
        let rounded: Vec<f32> = t.iter().map(|t| bf16_time(*t)).collect();
        let dt: Vec<f32> = dt.iter().map(|dt| bf16_time(*dt)).collect();
        let golden = g.array("velocity_bf16_time")?;
        let velocity = evaluate(b, g, dit, &rounded, &dt, None)?.take_f32("velocity")?;
        r.compare("velocity_bf16_time", &velocity, &golden, Kind::Velocity);
    }
    Ok(())
}

fn evaluate(
    b: &Bench,
    g: &Golden,
    dit: &LoadedDit,
    t: &[f32],
    dt: &[f32],
    report: Option<&mut Reporter>,
) -> Result<Outputs> {
    let x = g.array("hidden_states")?;
    let [batch, frames, _] = x.dims("hidden_states")?;
    let condition = g.array("encoder_hidden_states")?;
    let [_, rows, _]: [usize; 3] = condition.dims("encoder_hidden_states")?;
    let context = g.array("context_latents")?;
    let inputs = [("t", HostData::F32(t)), ("dt", HostData::F32(dt))];
    let mut times = b.run(
        dit::time_table(&dit.config, b.math, batch)?,
        &dit.weights,
        &inputs,
        &[],
    )?;
    let program = dit::cross_kv(&dit.config, b.math, batch, rows)?;
    let inputs = [("condition", HostData::F32(&condition.data))];
    let cross = b.run(program, &dit.weights, &inputs, &[])?;
    let (temb, proj) = if let Some(r) = report {
        compare_known(g, &times, r, Kind::Velocity)?;
        compare_known(g, &cross, r, Kind::Velocity)?;
        let proj = times.take_f32("proj")?;
        if g.has("timestep_proj") {
            r.compare(
                "timestep_proj",
                &proj,
                &g.array("timestep_proj")?,
                Kind::Velocity,
            );
        }
        (times.take_f32("temb")?, proj)
    } else {
        (times.take_f32("temb")?, times.take_f32("proj")?)
    };
    let shape = VelocityShape {
        batch,
        frames,
        condition_rows: rows,
        guided: false,
        time: TimeFrom::Items,
    };
    let lengths = vec![rows as i32; batch];
    let mut inputs = vec![
        ("x", HostData::F32(&x.data)),
        ("context", HostData::F32(&context.data)),
        ("temb", HostData::F32(&temb)),
        ("proj", HostData::F32(&proj)),
        ("lengths", HostData::I32(&lengths)),
    ];
    for (name, _, data) in cross.iter() {
        if let HostVec::F32(data) = data {
            inputs.push((name, HostData::F32(data)));
        }
    }
    b.run(
        dit::velocity(&dit.config, b.math, shape)?,
        &dit.weights,
        &inputs,
        &[],
    )
}

/// Rotary tables; the file repeats them for both halves of a head.
fn rope(g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    if !g.has("rope_cos") || !g.has("rope_sin") {
        return Ok(());
    }
    let [_, tokens, head]: [usize; 3] = g.array("rope_cos")?.dims("rope_cos")?;
    let (cos, sin) = rope_tables(tokens, dit.config.head_dim, dit.config.rope_theta);
    for (name, table) in [("rope_cos", cos), ("rope_sin", sin)] {
        let twice: Vec<f32> = table
            .chunks((head / 2).max(1))
            .flat_map(|row| [row, row].concat())
            .collect();
        r.compare(name, &twice, &g.array(name)?, Kind::BlockF32);
    }
    Ok(())
}

/// The sinusoid of a time alone.
pub fn sinusoid(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let mut cases = vec![("emb_f32", g.array("t")?.data)];
    if g.has("emb_from_bf16_t") {
        let products = g.array("t1000_bf16")?.data;
        cases.push((
            "emb_from_bf16_t",
            products.iter().map(|p| thousandth(*p)).collect(),
        ));
    }
    for (name, t) in cases {
        let golden = g.array(name)?;
        let [n, dim] = golden.dims(name)?;
        let mut p = Builder::new("sinusoid", Math::F32);
        let input = p.input("t", &[n]);
        let out = p.op(Op::TimeSinusoid { dim }, &[input]);
        p.output("embedding", out);
        let mut out = b.run(p.finish()?, &NoWeights, &[("t", HostData::F32(&t))], &[])?;
        r.compare(name, &out.take_f32("embedding")?, &golden, Kind::BlockF32);
    }
    Ok(())
}

/// A time whose product with 1000 is what a bf16 run makes of `t`: it rounds the time and then
/// the product.
fn bf16_time(t: f32) -> f32 {
    let bf16 = |x: f32| half::bf16::from_f32(x).to_f32();
    thousandth(bf16(1000.0 * bf16(t)))
}

/// The f32 whose product with 1000 rounds to `product`.
fn thousandth(product: f32) -> f32 {
    let guess = product / 1000.0;
    let near = [guess, guess.next_up(), guess.next_down()];
    near.into_iter()
        .find(|t| 1000.0 * t == product)
        .unwrap_or(guess)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_as_in_bf16() {
        for (t, product) in [
            (21.0f32 / 22.0, 952.0),
            (1.0, 1000.0),
            (0.3, 300.0),
            (0.0, 0.0),
        ] {
            assert_eq!(1000.0 * bf16_time(t), product);
        }
    }
}
