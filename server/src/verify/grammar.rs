//! What the host does around the planner: constrained decoding and the choice of tokens.

use super::bench::Bench;
use super::golden::{Golden, json};
use super::report::{Kind, Reporter};
use engine::sample::logits::{Candidates, TokenSampling, guide, penalize};
use engine::text::LmTokenizer;
use engine::text::grammar::{Field, Grammar, MAX_DURATION_S, Machine, Phase, Rules, Settings};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Which vocabulary a file of constrained decoding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// That of the tree's planner.
    Tree,
    /// The published one: the full base vocabulary, and codes up to the file's `vocab_size`.
    Published,
}

/// Bytes of the published base vocabulary that the full tree holds, and where.
pub fn published_tokenizer(b: &Bench) -> Result<(Vec<u8>, PathBuf)> {
    let path = b.root().join("tokenizer/tokenizer.json.gz");
    let failed = |e: std::io::Error| {
        Error::Missing(format!(
            "needs the full vocabulary, and {} cannot be read: {e}",
            path.display()
        ))
    };
    let file = std::fs::File::open(&path).map_err(failed)?;
    let mut text = Vec::new();
    // A bomb would not fit; the published file has 11 MB.
    let limited = flate2::read::GzDecoder::new(file).take(256 << 20);
    std::io::BufReader::new(limited)
        .read_to_end(&mut text)
        .map_err(failed)?;
    Ok((text, path))
}

/// A tokenizer with codes up to `size` tokens. A tree without a planner still has its text
/// encoder, whose vocabulary the planner's begins with.
fn tokenizer(b: &Bench, vocabulary: Vocabulary, size: u32) -> Result<LmTokenizer> {
    if vocabulary == Vocabulary::Published {
        let (bytes, path) = published_tokenizer(b)?;
        return LmTokenizer::with_codes(&bytes, size, &path);
    }
    let tree = Checkpoints::open(&b.checkpoints())?;
    if !tree.lms().is_empty() {
        return LmTokenizer::load(&tree.lm(None)?.path);
    }
    let path = tree.text_encoder()?.join("tokenizer.json");
    let bytes = std::fs::read(&path)
        .map_err(|e| Error::Missing(format!("cannot read {}: {e}", path.display())))?;
    LmTokenizer::with_codes(&bytes, size, &path)
}

/// Greedy constrained decoding over synthetic logits: tokens, sizes of the legal sets, text and
/// last state, all exact.
pub fn grammar(b: &Bench, path: &Path, vocabulary: Vocabulary, r: &mut Reporter) -> Result<()> {
    let all = json(path)?;
    let size = all["vocab_size"].as_u64().map(|n| n as u32);
    let size = size.ok_or_else(|| Error::Corrupt("vocab_size is missing".into()))?;
    let longest = all["max_duration"].as_u64().map(|n| n as u32);
    let tokenizer = Arc::new(tokenizer(b, vocabulary, size)?);
    let found = tokenizer.vocabulary().size();
    if found != size {
        let why = format!("vocab_size is {size}, the tokenizer has {found} tokens");
        return Err(Error::Corrupt(why));
    }
    let grammar = Arc::new(Grammar::new(tokenizer, longest.unwrap_or(MAX_DURATION_S))?);
    let scenarios = all["scenarios"].as_array().filter(|s| !s.is_empty());
    for case in scenarios.ok_or_else(|| Error::Corrupt("there are no scenarios".into()))? {
        scenario(&grammar, case, r)?;
    }
    Ok(())
}

fn scenario(grammar: &Arc<Grammar>, case: &Value, r: &mut Reporter) -> Result<()> {
    let text = |key: &str| case[key].as_str().unwrap_or_default();
    let name = text("name");
    let list = |key: &str| -> Result<Vec<i64>> {
        let values = case[key].as_array();
        let values = values.and_then(|v| v.iter().map(Value::as_i64).collect());
        values.ok_or_else(|| Error::Corrupt(format!("{name}: {key} is no list of numbers")))
    };
    let salt = case["salt"].as_u64().unwrap_or(0) as u32;
    let prompt = grammar.tokenizer().encode(text("prefix"))?;
    let mut machine = Machine::new(grammar.clone(), settings(case)?, &prompt)?;
    let want = list("tokens")?;
    let (mut tokens, mut allowed) = (Vec::new(), Vec::new());
    let mut logits = vec![0f32; grammar.vocabulary().size() as usize];
    for step in 0..want.len() {
        for (v, logit) in logits.iter_mut().enumerate() {
            *logit = synthetic(v as u32, step as u32, salt);
        }
        let set = machine.allowed(&logits);
        allowed.push(set.count() as i64);
        let token = set.best(&logits);
        tokens.push(token);
        machine.advance(token)?;
    }
    let wide: Vec<i64> = tokens.iter().map(|t| i64::from(*t)).collect();
    r.exact(&format!("{name}.tokens"), &wide, &want);
    r.exact(&format!("{name}.allowed"), &allowed, &list("allowed")?);
    let ours = grammar.vocabulary().decode(&tokens, false);
    r.exact_text(&format!("{name}.text"), &ours, text("text"));
    let state = machine.state().to_string();
    r.exact_text(&format!("{name}.final_state"), &state, text("final_state"));
    Ok(())
}

fn settings(case: &Value) -> Result<Settings> {
    let flag = |key: &str| case[key].as_bool().unwrap_or(false);
    let phase = match case["phase"].as_str() {
        Some("cot") => Phase::Cot,
        Some("codes") => Phase::Codes,
        Some("understand") => Phase::Understand,
        other => return Err(Error::Corrupt(format!("the phase {other:?} is unknown"))),
    };
    let mut settings = Settings {
        stop_at_reasoning: flag("stop"),
        skip_caption: flag("skip_caption"),
        skip_language: flag("skip_language"),
        target_s: case["duration"].as_f64(),
        rules: Rules::Upstream,
        ..Settings::new(phase)
    };
    for (key, value) in case["user"].as_object().into_iter().flatten() {
        let field = Field::ALL.into_iter().find(|f| f.name() == key);
        let (Some(field), Some(value)) = (field, value.as_str()) else {
            let why = format!("the user's value {key}: {value} is unknown");
            return Err(Error::Corrupt(why));
        };
        settings.user.insert(field, value.to_owned());
    }
    Ok(settings)
}

/// Logit of token `v` at step `n`, as the reference made it up.
fn synthetic(v: u32, n: u32, salt: u32) -> f32 {
    let mut x = v
        .wrapping_mul(2_654_435_761)
        .wrapping_add(n.wrapping_mul(40_503))
        .wrapping_add(salt.wrapping_mul(97))
        .wrapping_add(12_345);
    x ^= x >> 16;
    x = x.wrapping_mul(0x7FEB_352D);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846C_A68B);
    x ^= x >> 16;
    (8.0 * f64::from(x) / 4_294_967_296.0) as f32
}

/// Penalty, filters and probabilities of both upstream backends, each in its order. The second
/// (`nv`) is the engine's.
pub fn sampling(g: &Golden, r: &mut Reporter) -> Result<()> {
    let logits = g.array("logits")?;
    let [rows, size] = logits.dims("logits")?;
    if rows != 2 {
        return Err(Error::Corrupt("logits are not a guided pair".into()));
    }
    let mut written = Vec::new();
    for id in g.integers("input_ids")? {
        let id = u32::try_from(id).ok().filter(|id| (*id as usize) < size);
        written.push(id.ok_or_else(|| Error::Corrupt("input_ids lie beyond the logits".into()))?);
    }
    let completion = g.number("n_completion").unwrap_or(0.0) as usize;
    let output = &written[written.len().saturating_sub(completion)..];
    let cases = g.params.get("cases").and_then(Value::as_array);
    let cases = cases.ok_or_else(|| Error::Corrupt("cases are missing".into()))?;
    for (i, case) in cases.iter().enumerate() {
        let number = |key: &str| case[key].as_f64().unwrap_or(0.0) as f32;
        let how = TokenSampling {
            temperature: number("temperature"),
            top_k: number("top_k") as usize,
            top_p: number("top_p"),
            repetition_penalty: number("rep"),
            guidance: number("cfg"),
        };
        let (conditional, unconditional) = (logits.item(0), logits.item(1));

        let mut scores = conditional.to_vec();
        guide(&mut scores, unconditional, how.guidance);
        penalize(&mut scores, &written, how.repetition_penalty);
        let name = format!("pt{i}_after_penalty");
        r.compare(&name, &scores, &g.array(&name)?, Kind::Probability);
        let mut candidates = Candidates::all(&scores);
        candidates.top_k(how.top_k);
        candidates.top_p(how.top_p);
        filtered(g, &format!("pt{i}_filtered"), &candidates, r)?;
        if how.temperature <= 0.0 {
            let name = format!("pt{i}_argmax");
            let best: Vec<i64> = candidates.best().into_iter().map(i64::from).collect();
            r.exact(&name, &best, &g.integers(&name)?);
            continue;
        }
        candidates.temper(how.temperature);
        probabilities(g, &format!("pt{i}_probs"), &candidates, size, r)?;

        let mut scores = conditional.to_vec();
        penalize(&mut scores, output, how.repetition_penalty);
        guide(&mut scores, unconditional, how.guidance);
        let mut candidates = Candidates::all(&scores);
        candidates.filter(&how);
        probabilities(g, &format!("nv{i}_probs"), &candidates, size, r)?;
    }
    Ok(())
}

/// Which tokens are left, and their logits.
fn filtered(g: &Golden, name: &str, ours: &Candidates, r: &mut Reporter) -> Result<()> {
    let theirs = g.masked(name)?;
    let kept = theirs.iter().enumerate().filter(|(_, l)| l.is_finite());
    let (ids, logits): (Vec<i64>, Vec<f32>) = kept.map(|(id, l)| (id as i64, *l)).unzip();
    let our_ids: Vec<i64> = ours.iter().map(|(id, _)| i64::from(id)).collect();
    let our_logits: Vec<f32> = ours.iter().map(|(_, logit)| logit).collect();
    r.exact(&format!("{name}.ids"), &our_ids, &ids);
    if our_ids == ids {
        r.compare_part(name, &our_logits, &logits, Kind::Probability);
    }
    Ok(())
}

fn probabilities(
    g: &Golden,
    name: &str,
    ours: &Candidates,
    size: usize,
    r: &mut Reporter,
) -> Result<()> {
    let mut all = vec![0f32; size];
    for ((id, _), p) in ours.iter().zip(ours.probabilities()) {
        all[id as usize] = p;
    }
    r.compare(name, &all, &g.array(name)?, Kind::Probability);
    Ok(())
}
