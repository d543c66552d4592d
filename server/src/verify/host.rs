//! What the host computes: tokens, times, random numbers.

use super::bench::Bench;
use super::golden::{Golden, json};
use super::grammar::published_tokenizer;
use super::report::{Kind, Reporter};
use engine::sample::noise::{Mt19937, NoiseKind, philox4x32};
use engine::sample::schedule;
use engine::text::{LmTokenizer, Tokenizer};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use serde_json::Value;
use std::path::Path;

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_f64)
        .collect()
}

fn list<'a>(v: &'a Value, key: &str) -> Result<&'a Vec<Value>> {
    v[key]
        .as_array()
        .ok_or_else(|| Error::Corrupt(format!("{key} is not a list")))
}

/// Schedules, which must agree to the bit.
pub fn schedules(path: &Path, r: &mut Reporter) -> Result<()> {
    let all = json(path)?;
    for family in ["turbo", "base"] {
        for case in list(&all, family)? {
            let p = &case["params"];
            let steps = p["infer_steps"].as_u64().map(|n| n as usize);
            let shift = p["shift"].as_f64().unwrap_or(3.0);
            let given = p.get("timesteps").map(numbers);
            let want: Vec<f32> = numbers(&case["t_f32"]).iter().map(|t| *t as f32).collect();
            let name = format!("{family} {p}");
            if family == "base" {
                let times = schedule::base(steps.unwrap_or(0), shift, given.as_deref())?;
                r.exact_f32(&name, &times, &want);
                continue;
            }
            let times = schedule::turbo(steps, shift, given.as_deref())?;
            let strength = p["cover_noise_strength"].as_f64().unwrap_or(0.0) as f32;
            let left = schedule::after_cover_noise(&times, strength);
            r.exact_f32(&name, &left[..left.len() - 1], &want);
        }
    }
    Ok(())
}

/// Texts to ids and back, for every vocabulary that is in the tree.
pub fn tokenizer(b: &Bench, path: &Path, r: &mut Reporter) -> Result<()> {
    let all = json(path)?;
    let sections = all
        .as_object()
        .ok_or_else(|| Error::Corrupt("is not an object of vocabularies".into()))?;
    for (section, value) in sections {
        let tokenizer = match tokenizer_of(b, section) {
            Ok(tokenizer) => tokenizer,
            Err(e) => {
                r.fault(format!("{section}: {e}"));
                continue;
            }
        };
        let planner = match section.as_str() {
            "tiny_lm" => Some(planner(b)?),
            _ => None,
        };
        for (i, case) in list(value, "cases")?.iter().enumerate() {
            let Some(text) = case["text"].as_str() else {
                return Err(Error::Corrupt(format!("{section}: case {i} has no text")));
            };
            let integers = |key: &str| -> Vec<i64> {
                numbers(&case[key]).iter().map(|id| *id as i64).collect()
            };
            let widen = |ids: Vec<u32>| -> Vec<i64> { ids.into_iter().map(i64::from).collect() };
            let name = |key: &str| format!("{section}[{i}].{key}");
            let ids = tokenizer.encode(text, usize::MAX)?;
            let plain = tokenizer.encode_plain(text)?;
            for (key, skip) in [("decoded", false), ("decoded_skip_special", true)] {
                let want = case[key].as_str().unwrap_or_default();
                // The texts were decoded from the ids without the appended token.
                r.exact_text(&name(key), &tokenizer.decode(&plain, skip)?, want);
            }
            r.exact(&name("ids"), &widen(ids), &integers("ids"));
            let want = integers("ids_no_post");
            r.exact(&name("ids_no_post"), &widen(plain), &want);
            if let Some(planner) = &planner {
                let ours = planner.encode(text)?;
                let decoded = planner.vocabulary().decode(&ours, true);
                let skipped = case["decoded_skip_special"].as_str().unwrap_or_default();
                r.exact(&name("planner.ids"), &widen(ours), &want);
                r.exact_text(&name("planner.decoded"), &decoded, skipped);
            }
        }
    }
    Ok(())
}

/// The tree's planner as the engine reads it.
fn planner(b: &Bench) -> Result<LmTokenizer> {
    LmTokenizer::load(&Checkpoints::open(&b.checkpoints())?.lm(None)?.path)
}

/// The tokenizer a section of the cases is about.
fn tokenizer_of(b: &Bench, section: &str) -> Result<Tokenizer> {
    let tree = Checkpoints::open(&b.checkpoints())?;
    match section {
        "tiny_text_encoder" => Tokenizer::load(&tree.text_encoder()?),
        "tiny_lm" => Tokenizer::load(&tree.lm(None)?.path),
        "real_text_encoder" => {
            let (text, path) = published_tokenizer(b)?;
            Tokenizer::from_bytes(&text, &path)
        }
        other => Err(Error::Corrupt(format!("no tokenizer is known for {other}"))),
    }
}

/// Random words and normals; which generator, how many and which seed are in the names.
pub fn random(g: &Golden, r: &mut Reporter) -> Result<()> {
    for name in g.names() {
        if let Some((stem, seed)) = name.rsplit_once("_seed") {
            let Ok(seed) = seed.parse::<u64>() else {
                r.fault(format!("{name}: no seed in the name"));
                continue;
            };
            seeded(g, r, name, stem, seed)?;
        } else if let Some(card) = name.strip_prefix("cuda_large_probe_")
            && card != "index"
        {
            large(g, r, name, card)?;
        } else if !["cuda_large_n", "cuda_large_probe_index"].contains(&name) {
            r.fault(format!("{name}: no generator is known for this tensor"));
        }
    }
    Ok(())
}

fn seeded(g: &Golden, r: &mut Reporter, name: &str, stem: &str, seed: u64) -> Result<()> {
    let normals = |kind: NoiseKind, n: usize| {
        let mut out = vec![0f32; n];
        kind.fill(seed, &mut out);
        out
    };
    match stem {
        "cpu_mt19937_raw" => {
            let want = g.integers(name)?;
            let mut generator = Mt19937::new(seed as u32);
            let ours: Vec<i64> = want.iter().map(|_| i64::from(generator.word())).collect();
            r.exact(name, &ours, &want);
        }
        "philox_raw" => {
            let want = g.integers(name)?;
            let key = [seed as u32, (seed >> 32) as u32];
            let block = |i: usize| philox4x32([0, 0, i as u32, 0], key).map(i64::from);
            let ours: Vec<i64> = (0..want.len().div_ceil(4)).flat_map(block).collect();
            r.exact(name, &ours, &want);
        }
        "cpu_bf16" => {
            let want = g.array(name)?;
            let round = |x: f32| half::bf16::from_f32(x).to_f32();
            let ours = normals(NoiseKind::Mt19937, want.data.len());
            let ours: Vec<f32> = ours.into_iter().map(round).collect();
            r.compare(name, &ours, &want, Kind::NoiseBf16);
        }
        _ if stem.starts_with("cpu_f32") => {
            let want = g.array(name)?;
            let ours = normals(NoiseKind::Mt19937, want.data.len());
            r.compare(name, &ours, &want, Kind::Noise);
        }
        _ if stem.starts_with("cuda_f32") => {
            let want = g.array(name)?;
            let ours = normals(NoiseKind::default(), want.data.len());
            r.compare(name, &ours, &want, Kind::Noise);
        }
        _ => r.fault(format!("{name}: no generator is known for this tensor")),
    }
    Ok(())
}

/// Normals beyond one launch of a card, `NAME_{processors}sm_{threads per processor}`.
fn large(g: &Golden, r: &mut Reporter, name: &str, card: &str) -> Result<()> {
    let mut parts = card.rsplit('_');
    let threads = parts.next().and_then(|t| t.parse::<u64>().ok());
    let processors = parts
        .next()
        .and_then(|p| p.strip_suffix("sm")?.parse::<u64>().ok());
    let (Some(threads), Some(processors)) = (threads, processors) else {
        r.fault(format!("{name}: no launch size in the name"));
        return Ok(());
    };
    let seed = g.number("large_seed").unwrap_or(0.0) as u64;
    let n = g.integers("cuda_large_n")?.first().copied().unwrap_or(0);
    if !(0..=1 << 28).contains(&n) {
        return Err(Error::Corrupt(format!("cuda_large_n is {n}")));
    }
    let grid = Some(256 * processors * (threads / 256));
    let mut all = vec![0f32; n as usize];
    NoiseKind::Philox { grid }.fill(seed, &mut all);
    let probes = g.integers("cuda_large_probe_index")?;
    let ours: Option<Vec<f32>> = probes
        .iter()
        .map(|i| all.get(*i as usize).copied())
        .collect();
    let ours = ours.ok_or_else(|| Error::Corrupt("a probe lies beyond cuda_large_n".into()))?;
    r.compare(name, &ours, &g.array(name)?, Kind::Noise);
    Ok(())
}
