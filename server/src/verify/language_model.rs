//! The language model: prompts read at once, tokens appended one by one, and a guided pair.

use super::bench::{Bench, compare_known, ids_within};
use super::golden::Golden;
use super::report::{Kind, Reporter};
use engine::backend::HostData;
use engine::models::language_model::{Head, LmShape, cache_names, cache_shape, forward};
use engine::program::Math;
use engine::song::NoWatch;
use engine::song::language_model::LanguageModel;
use engine::{Error, Result};

/// Tokens of a golden tensor, checked against the vocabulary.
fn tokens(g: &Golden, name: &str, lm: &LanguageModel) -> Result<Vec<u32>> {
    let ids = ids_within(&g.integers(name)?, lm.config.vocab_size, name)?;
    Ok(ids.into_iter().map(|id| id as u32).collect())
}

/// Logits of one prompt with and without a cache, its intermediates, and what the cache holds.
pub fn prompt(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    let lm = b.language_model()?;
    let ids = tokens(g, "input_ids", &lm)?;
    if ids.is_empty() {
        return Err(Error::Corrupt("input_ids is empty".into()));
    }
    intermediates(b, g, r, &lm, &ids)?;
    for name in g.names().filter(|n| n.starts_with("logits_prefill_pos")) {
        let at = name.trim_start_matches("logits_prefill_pos").parse();
        let prefix = at.ok().and_then(|at: usize| ids.get(..=at));
        let prefix = prefix.ok_or_else(|| Error::Corrupt(format!("{name} has no position")))?;
        let mut session = lm.session(1, prefix.len())?;
        let logits = session.feed(0, prefix, Head::Full, &NoWatch)?;
        r.compare(name, logits, &g.array(name)?, Kind::Logits);
    }
    let decoded = tokens(g, "decoded_tokens", &lm)?;
    let golden = g.array("logits_step")?;
    let [steps, vocabulary] = golden.dims("logits_step")?;
    if steps > decoded.len() + 1 || vocabulary != lm.config.vocab_size {
        return Err(Error::Corrupt("logits_step has another size".into()));
    }
    let mut session = lm.session(1, ids.len() + steps)?;
    for step in 0..steps {
        let logits = match step {
            0 => session.feed(0, &ids, Head::Full, &NoWatch)?,
            _ => session.step(0, &decoded[step - 1..step], Head::Full)?,
        };
        let name = format!("logits_step[{step}]");
        r.compare_part(&name, logits, golden.item(step), Kind::Logits);
    }
    let mut session = lm.session(1, ids.len())?;
    session.feed(0, &ids, Head::None, &NoWatch)?;
    for (name, ours) in ["k", "v"].into_iter().zip(session.cached(0, 0)?) {
        let name = format!("layer0_{name}_cache");
        if g.has(&name) {
            // The file keeps heads before positions.
            let ours = heads_first(&ours, ids.len(), lm.config.num_key_value_heads);
            r.compare(&name, &ours, &g.array(&name)?, Kind::Block);
        }
    }
    Ok(())
}

/// Every tap, and the state after the final norm, of which only the last row is computed.
fn intermediates(
    b: &Bench,
    g: &Golden,
    r: &mut Reporter,
    lm: &LanguageModel,
    ids: &[u32],
) -> Result<()> {
    let t = ids.len();
    let shape = LmShape {
        rows: 1,
        tokens: t,
        capacity: t,
        head: Head::None,
    };
    let numbers = |from: &mut dyn Iterator<Item = usize>| from.map(|n| n as i32).collect();
    let ids: Vec<i32> = numbers(&mut ids.iter().map(|id| *id as usize));
    let positions: Vec<i32> = numbers(&mut (0..t));
    let length = [t as i32];
    let empty = vec![0.0; cache_shape(&lm.config, 1, t).iter().product()];
    let states: Vec<String> = (0..lm.config.num_hidden_layers)
        .flat_map(cache_names)
        .collect();
    let mut inputs = vec![
        ("ids", HostData::I32(&ids)),
        ("positions", HostData::I32(&positions)),
        ("at", HostData::I32(&[0])),
        ("lengths", HostData::I32(&length)),
    ];
    inputs.extend(
        states
            .iter()
            .map(|name| (name.as_str(), HostData::F32(&empty))),
    );
    let program = forward(&lm.config, b.math, shape)?;
    let mut out = b.run(program, lm.weights(), &inputs, &[])?;
    compare_known(g, &out, r, Kind::Block)?;
    if g.has("final_norm") {
        let golden = g.array("final_norm")?;
        let [_, rows, c]: [usize; 3] = golden.dims("final_norm")?;
        let last = &golden.data[(rows - 1) * c..rows * c];
        r.compare_part("final_norm", &out.take_f32("hidden")?, last, Kind::Block);
    }
    Ok(())
}

/// `(T, G, D)` to `(G, T, D)`.
fn heads_first(x: &[f32], t: usize, heads: usize) -> Vec<f32> {
    let d = x.len() / t / heads;
    (0..heads * t)
        .flat_map(|i| x[(i % t * heads + i / t) * d..][..d].iter().copied())
        .collect()
}

/// A conditional and an unconditional row of different lengths, continued in one batch with the
/// likeliest guided token.
pub fn guided_pair(b: &Bench, g: &Golden, r: &mut Reporter) -> Result<()> {
    /// Guidance scale of the file.
    const SCALE: f32 = 2.0;
    let lm = b.language_model()?;
    let golden = g.array("logits")?;
    let [steps, rows, vocabulary] = golden.dims("logits")?;
    let ids = tokens(g, "input_ids", &lm)?;
    let masks = g.valid_rows("attention_mask")?;
    let width = masks.first().map_or(0, Vec::len);
    let chosen = tokens(g, "tokens", &lm)?;
    let sound = rows == 2
        && masks.len() == rows
        && ids.len() == rows * width
        && masks.iter().all(|row| row.contains(&true))
        && vocabulary == lm.config.vocab_size
        && steps <= chosen.len() + 1;
    if !sound {
        let what = "input_ids, attention_mask, tokens and logits do not belong together";
        return Err(Error::Corrupt(what.into()));
    }
    let mut session = lm.session(rows, width + steps)?;
    for step in 0..steps {
        let logits = if step == 0 {
            let mut first = Vec::with_capacity(rows * vocabulary);
            for (row, mask) in masks.iter().enumerate() {
                let ids = ids[row * width..].iter().zip(mask);
                let ids: Vec<u32> = ids
                    .filter(|(_, valid)| **valid)
                    .map(|(id, _)| *id)
                    .collect();
                first.extend_from_slice(session.feed(row, &ids, Head::Full, &NoWatch)?);
            }
            first
        } else {
            let token = chosen[step - 1];
            session.step(0, &[token, token], Head::Full)?.to_vec()
        };
        let name = format!("logits[{step}]");
        r.compare_part(&name, &logits, golden.item(step), Kind::Logits);
        // In bf16 two candidates may change places.
        if b.math == Math::F32 && step < chosen.len() {
            let (c, u) = logits.split_at(vocabulary);
            let guided = c.iter().zip(u).map(|(c, u)| u + SCALE * (c - u));
            let best = guided.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            let best = best.map_or(0, |(token, _)| token as i64);
            r.exact(
                &format!("tokens[{step}]"),
                &[best],
                &[i64::from(chosen[step])],
            );
        }
    }
    Ok(())
}
