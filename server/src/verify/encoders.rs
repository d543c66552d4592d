//! Caption, lyric, timbre and condition encoders, and the packing of their results.

use super::bench::{Bench, compare_known, ids_within};
use super::golden::{Array, Golden};
use super::report::{Kind, Reporter};
use engine::backend::{HostData, HostVec, NoWeights};
use engine::models::condition::{self, PackShape};
use engine::models::text_encoder;
use engine::program::{Builder, Math, Op};
use engine::song::loaded::LoadedDit;
use engine::{Error, Result};

/// The caption encoder over padded prompts. It is causal: padding behind a prompt changes nothing.
pub fn text(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let text = b.text()?;
    let &[batch, t] = g.shape("input_ids").unwrap_or_default() else {
        return Err(Error::Corrupt("input_ids is not (B, T)".into()));
    };
    let ids = ids_within(
        &g.integers("input_ids")?,
        text.config.vocab_size,
        "input_ids",
    )?;
    let program = text_encoder::text_encoder(&text.config, b.math, batch, t)?;
    let out = b.run(program, &text.weights, &[("ids", HostData::I32(&ids))], &[])?;
    compare_known(g, &out, r, Kind::Block)
}

/// First `rows` of the `T` rows of item `i`.
fn rows_of(x: &Array, i: usize, rows: usize) -> &[f32] {
    let item = x.item(i);
    let width = x.shape[2..].iter().product::<usize>();
    &item[..rows * width]
}

fn items_of(x: &Array, lengths: &[usize], name: &str) -> Result<[usize; 3]> {
    let dims @ [batch, t, _]: [usize; 3] = x.dims(name)?;
    if lengths.len() == batch && lengths.iter().all(|n| *n <= t) {
        return Ok(dims);
    }
    Err(Error::Corrupt(format!(
        "{name} {dims:?} and its mask do not belong together"
    )))
}

/// The lyric encoder, each item with its own length. Only valid rows are compared: the others are
/// an artefact of padding.
pub fn lyric(b: &Bench, g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    let embeds = g.array("inputs_embeds")?;
    let lengths = g.lengths("attention_mask")?;
    let [batch, t, _] = items_of(&embeds, &lengths, "inputs_embeds")?;
    for (i, &n) in lengths.iter().enumerate().filter(|(_, n)| **n > 0) {
        let program = condition::lyric_encoder(&dit.config, b.math, 1, n)?;
        let input = HostData::F32(rows_of(&embeds, i, n));
        let out = b.run(program, &dit.weights, &[("inputs_embeds", input)], &[])?;
        for (name, _, data) in out.iter() {
            let HostVec::F32(ours) = data else { continue };
            if g.shape(name)
                .is_some_and(|s| s.len() > 2 && s[..2] == [batch, t])
            {
                let golden = g.array(name)?;
                r.compare_part(
                    &format!("{name}[{i}]"),
                    ours,
                    rows_of(&golden, i, n),
                    Kind::Block,
                );
            }
            let alone = format!("{name}_item{i}_unpadded");
            if g.has(&alone) {
                r.compare(&alone, ours, &g.array(&alone)?, Kind::Block);
            }
        }
    }
    Ok(())
}

/// The timbre encoder over packed references, and their assignment to items.
pub fn timbre(b: &Bench, g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    let clips = g.array("refer_packed")?;
    let [n, frames, _] = clips.dims("refer_packed")?;
    let program = condition::timbre_encoder(&dit.config, b.math, n, frames)?;
    let input = HostData::F32(&clips.data);
    let mut out = b.run(program, &dit.weights, &[("latents", input)], &[])?;
    compare_known(g, &out, r, Kind::Block)?;
    if !g.has("unpacked") {
        return Ok(());
    }
    let timbre = out.take_f32("timbre")?;
    let want = g.array("unpacked")?;
    let [items, most, width] = want.dims("unpacked")?;
    let order = g.integers("order_mask")?;
    let mut unpacked = vec![0f32; want.data.len()];
    let mut valid = vec![0i64; items * most];
    for i in 0..items {
        for (slot, clip) in clips_of(&order, i, n).into_iter().take(most).enumerate() {
            let at = i * most + slot;
            valid[at] = 1;
            unpacked[at * width..(at + 1) * width]
                .copy_from_slice(&timbre[clip * width..(clip + 1) * width]);
        }
    }
    r.compare("unpacked", &unpacked, &want, Kind::Block);
    if g.has("unpacked_mask") {
        r.exact("unpacked_mask", &valid, &g.integers("unpacked_mask")?);
    }
    Ok(())
}

/// Clips of item `i`, in order of appearance.
fn clips_of(order: &[i64], i: usize, clips: usize) -> Vec<usize> {
    let of_item = order
        .iter()
        .take(clips)
        .enumerate()
        .filter(|(_, o)| **o == i as i64);
    of_item.map(|(clip, _)| clip).collect()
}

/// Names of the inputs of a condition within a file.
pub struct ConditionNames {
    /// Caption states `(B, T, C)`.
    pub text: &'static str,
    /// Batch item of each timbre clip.
    pub order: &'static str,
}

/// What one item's condition is made of, computed as if the item were alone.
pub struct PackedItem {
    /// Valid rows.
    pub shape: PackShape,
    /// Caption rows after their projection.
    pub projected: Vec<f32>,
    /// Lyric, timbre and caption rows.
    pub packed: Vec<f32>,
}

/// Runs the condition encoders for each item of a file.
pub fn pack_items(
    b: &Bench,
    g: &Golden,
    dit: &LoadedDit,
    names: &ConditionNames,
) -> Result<Vec<PackedItem>> {
    let text = g.array(names.text)?;
    let text_lengths = g.lengths("text_attention_mask")?;
    items_of(&text, &text_lengths, names.text)?;
    let lyrics = g.array("lyric_hidden_states")?;
    let lyric_lengths = g.lengths("lyric_attention_mask")?;
    items_of(&lyrics, &lyric_lengths, "lyric_hidden_states")?;
    let clips = g.array("refer_packed")?;
    let [count, frames, _] = clips.dims("refer_packed")?;
    let order = g.integers(names.order)?;
    let encoder = dit.encoder(&*b.backend, b.math);
    let mut items = Vec::new();
    for (i, (&n_text, &n_lyric)) in text_lengths.iter().zip(&lyric_lengths).enumerate() {
        let own: Vec<f32> = clips_of(&order, i, count)
            .into_iter()
            .flat_map(|c| clips.item(c).to_vec())
            .collect();
        if own.is_empty() || n_text == 0 || n_lyric == 0 {
            return Err(Error::Corrupt(format!(
                "item {i} lacks lyrics, timbre or caption"
            )));
        }
        let lyric = encoder.lyric(rows_of(&lyrics, i, n_lyric))?;
        let timbre = encoder.timbre(&own, frames)?;
        let shape = PackShape {
            lyric: n_lyric,
            timbre: own.len() / clips.item(0).len(),
            text: n_text,
        };
        let program = condition::pack(&dit.config, b.math, shape)?;
        let inputs = [
            ("lyric", HostData::F32(&lyric)),
            ("timbre", HostData::F32(&timbre)),
            ("text", HostData::F32(rows_of(&text, i, n_text))),
        ];
        let mut out = b.run(program, &dit.weights, &inputs, &[])?;
        items.push(PackedItem {
            shape,
            projected: out.take_f32("text_projected")?,
            packed: out.take_f32("packed")?,
        });
    }
    Ok(items)
}

/// The condition encoders together.
pub fn condition(b: &Bench, g: &Golden, r: &mut Reporter, dit: &LoadedDit) -> Result<()> {
    let names = ConditionNames {
        text: "text_hidden_states",
        order: "order_mask",
    };
    let items = pack_items(b, g, dit, &names)?;
    let packed = g.array("packed")?;
    let [batch, rows, _] = packed.dims("packed")?;
    if batch != items.len() || items.iter().any(|i| i.shape.rows() > rows) {
        return Err(Error::Corrupt(
            "packed and its inputs do not belong together".into(),
        ));
    }
    let projected = g
        .has("text_projected")
        .then(|| g.array("text_projected"))
        .transpose()?;
    for (i, item) in items.iter().enumerate() {
        if let Some(golden) = &projected {
            items_of(golden, &vec![item.shape.text; batch], "text_projected")?;
            let theirs = rows_of(golden, i, item.shape.text);
            r.compare_part(
                &format!("text_projected[{i}]"),
                &item.projected,
                theirs,
                Kind::Block,
            );
        }
        let theirs = rows_of(&packed, i, item.shape.rows());
        r.compare_part(&format!("packed[{i}]"), &item.packed, theirs, Kind::Block);
        let alone = format!("packed_item{i}_alone");
        if g.has(&alone) {
            r.compare(&alone, &item.packed, &g.array(&alone)?, Kind::Block);
        }
    }
    if g.has("packed_mask") {
        let mask: Vec<i64> = items
            .iter()
            .flat_map(|item| (0..rows).map(|row| i64::from(row < item.shape.rows())))
            .collect();
        r.exact("packed_mask", &mask, &g.integers("packed_mask")?);
    }
    Ok(())
}

/// Conditions of the trajectories from their raw inputs, where the file of inputs has them.
pub fn trajectory_conditions(
    b: &Bench,
    g: &Golden,
    r: &mut Reporter,
    dit: &LoadedDit,
    inputs: &Golden,
) -> Result<()> {
    if !inputs.has("refer_packed") || !inputs.has("lyric_hidden_states") {
        r.inputs();
        return Ok(());
    }
    for (text, kind) in [
        ("text_hidden_states", "text2music"),
        ("non_cover_text_hidden_states", "non_cover"),
    ] {
        let name = format!("encoder_hidden_states.{kind}");
        if !g.has(&name) || !inputs.has(text) {
            continue;
        }
        let names = ConditionNames {
            text,
            order: "refer_audio_order_mask",
        };
        let golden = g.array(&name)?;
        let [batch, rows, _] = golden.dims(&name)?;
        for (i, item) in pack_items(b, inputs, dit, &names)?.iter().enumerate() {
            if i >= batch || item.shape.rows() > rows {
                return Err(Error::Corrupt(format!("{name} does not fit its inputs")));
            }
            let theirs = rows_of(&golden, i, item.shape.rows());
            r.compare_part(&format!("{name}[{i}]"), &item.packed, theirs, Kind::Block);
        }
    }
    Ok(())
}

/// Packing alone: valid rows of both parts first, then the masked ones.
pub fn packing(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let parts = [
        (g.array("h1")?, g.valid_rows("m1")?),
        (g.array("h2")?, g.valid_rows("m2")?),
    ];
    let packed = g.array("packed")?;
    let [batch, rows, width] = packed.dims("packed")?;
    let mut mask = Vec::new();
    for i in 0..batch {
        let mut pieces: Vec<Vec<f32>> = Vec::new();
        let mut valid = 0;
        for keep in [true, false] {
            for (h, m) in &parts {
                let [items, t, _]: [usize; 3] = h.dims("h")?;
                if items != batch || m.len() != batch || m[i].len() != t {
                    return Err(Error::Corrupt("the parts and masks do not fit".into()));
                }
                let chosen = (0..t).filter(|j| m[i][*j] == keep);
                let rows: Vec<f32> = chosen
                    .flat_map(|j| h.item(i)[j * width..(j + 1) * width].to_vec())
                    .collect();
                valid += if keep { rows.len() / width } else { 0 };
                pieces.push(rows);
            }
        }
        mask.extend((0..rows).map(|row| i64::from(row < valid)));
        pieces.retain(|p| !p.is_empty());
        let ours = concat_rows(b, &pieces, width)?;
        r.exact_f32(&format!("packed[{i}]"), &ours, packed.item(i));
    }
    r.exact("packed_mask", &mask, &g.integers("packed_mask")?);
    Ok(())
}

fn concat_rows(b: &Bench, pieces: &[Vec<f32>], width: usize) -> Result<Vec<f32>> {
    let mut p = Builder::new("concat_rows", Math::F32);
    let names: Vec<String> = (0..pieces.len()).map(|i| format!("part{i}")).collect();
    let vals: Vec<_> = names
        .iter()
        .zip(pieces)
        .map(|(name, piece)| p.input(name, &[1, piece.len() / width, width]))
        .collect();
    let out = p.op(Op::ConcatRows, &vals);
    p.output("packed", out);
    let inputs: Vec<(&str, HostData)> = names
        .iter()
        .map(String::as_str)
        .zip(pieces.iter().map(|p| HostData::F32(p)))
        .collect();
    b.run(p.finish()?, &NoWeights, &inputs, &[])?
        .take_f32("packed")
}
