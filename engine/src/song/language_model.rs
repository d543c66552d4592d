//! The language model on a device: rows of tokens that are read and continued, each with its
//! keys and values kept.

use super::Watch;
use super::fit_planner::PlannerFit;
use super::loaded::{PROBE, checked};
use crate::backend::{Backend, Device, Ready, Region, prepare};
use crate::error::{Error, Result};
use crate::models::config::LmConfig;
use crate::models::language_model::{
    Head, LmShape, cache_bytes, cache_dtype, cache_names, cache_shape, copy_prefix, forward,
};
use crate::program::{DType, Math, Op, ValKind};
use crate::weights::{Checkpoints, WeightStore};
use std::path::Path;
use std::sync::Arc;

/// Most tokens of a prompt that are read at once.
pub const CHUNK: usize = 256;
/// Most programs a session keeps ready; prompts of other lengths are other programs.
const READY: usize = 12;

/// A language model of a checkpoint tree, mapped and checked.
pub struct LanguageModel {
    /// Name of its directory.
    pub name: String,
    /// Sizes.
    pub config: LmConfig,
    weights: WeightStore,
    backend: Arc<dyn Backend>,
    math: Math,
}

impl LanguageModel {
    /// Maps and checks the model of this name in `tree`, without a name the first there is.
    pub fn open(tree: &Checkpoints, name: Option<&str>, device: Device) -> Result<Self> {
        let model = tree.lm(name)?;
        Self::open_dir(&model.name, &model.path, device)
    }

    /// As [`LanguageModel::open`], from a directory of its own.
    ///
    /// # Errors
    /// [`Error::TooBig`] when the weights do not fit into the device's memory: every token reads
    /// all of them.
    pub fn open_dir(name: &str, dir: &Path, device: Device) -> Result<Self> {
        let Device { backend, math } = device;
        let config = LmConfig::load(dir)?;
        let shape = LmShape {
            rows: 1,
            tokens: PROBE,
            capacity: PROBE,
            head: Head::Full,
        };
        let weights = checked(dir, &[forward(&config, math, shape)?])?;
        let needs = weights.checkpoint().files().map(|(_, bytes)| bytes).sum();
        let have = backend.caps().memory_bytes;
        if have > 0 && needs > have {
            return Err(Error::TooBig {
                needs,
                have,
                suggestion: format!("choose a smaller language model than {name}"),
            });
        }
        Ok(LanguageModel {
            name: name.to_string(),
            config,
            weights,
            backend,
            math,
        })
    }

    /// The device.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The weights.
    pub fn weights(&self) -> &WeightStore {
        &self.weights
    }

    /// The model by its sizes alone.
    pub fn fit(&self) -> PlannerFit<'_> {
        PlannerFit {
            backend: self.backend(),
            config: &self.config,
            math: self.math,
        }
    }

    /// What a step over `rows` rows of `length` tokens reads, the new one included.
    pub fn traffic(&self, rows: usize, length: usize, head: Head) -> Result<Traffic> {
        let shape = LmShape {
            rows,
            tokens: 1,
            capacity: length,
            head,
        };
        let program = forward(&self.config, self.math, shape)?;
        let mut traffic = Traffic::default();
        for step in &program.steps {
            for v in &step.ins {
                let info = &program.vals[program.root(*v).index()];
                match &info.kind {
                    // Of the table only the rows of the tokens are read.
                    ValKind::Weight(_) if step.op == Op::Embed => {}
                    ValKind::Weight(decl) => {
                        let dtype = self.weights.dtype(decl, self.math)?;
                        traffic.weights += (info.len() * dtype.bytes()) as u64;
                    }
                    ValKind::State(_) if !step.op.writes_state() => {
                        traffic.cache += info.bytes() as u64;
                    }
                    _ => {}
                }
            }
        }
        Ok(traffic)
    }

    /// `rows` empty rows with room for `capacity` tokens each.
    ///
    /// # Errors
    /// [`Error::TooBig`] when they do not fit into the device's memory, and
    /// [`Error::Request`] when the model has fewer positions.
    pub fn session(&self, rows: usize, capacity: usize) -> Result<Session<'_>> {
        let positions = self.config.max_position_embeddings;
        if capacity > positions {
            return Err(Error::Request(format!(
                "prompt and answer have up to {capacity} tokens, {} has {positions} positions: \
                 shorten the texts or the duration",
                self.name
            )));
        }
        let cache = cache_bytes(&self.config, self.math) as u64;
        let cache = cache
            .saturating_mul(rows as u64)
            .saturating_mul(capacity as u64);
        let have = self.backend.caps().memory_bytes;
        let needs = match have {
            0 => 0,
            _ if cache > have => cache,
            _ => self.fit().needs(rows, capacity, Head::None)?,
        };
        if needs > have {
            return Err(Error::TooBig {
                needs,
                have,
                suggestion: match rows {
                    1 => "shorten the texts, or choose a smaller language model".into(),
                    _ => "ask for fewer or shorter songs, or shorten the texts".into(),
                },
            });
        }
        let shape = cache_shape(&self.config, rows, capacity);
        let state = || Region::zeros(self.backend(), &shape, cache_dtype(self.math));
        let layers = 0..self.config.num_hidden_layers;
        Ok(Session {
            model: self,
            capacity,
            lengths: vec![0; rows],
            cache: layers
                .map(|_| Ok([state()?, state()?]))
                .collect::<Result<_>>()?,
            ready: Vec::with_capacity(READY),
        })
    }
}

/// Bytes that one step reads at least: everything but what stays in the caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Weights, those of the head included.
    pub weights: u64,
    /// Keys and values of all rows.
    pub cache: u64,
}

impl Traffic {
    /// All of it.
    pub fn bytes(self) -> u64 {
        self.weights + self.cache
    }
}

/// Rows of tokens and their keys and values.
///
/// Rows are independent: they may have different lengths, and what one holds does not depend on
/// the others that are continued with it.
pub struct Session<'a> {
    model: &'a LanguageModel,
    capacity: usize,
    /// Tokens of each row.
    lengths: Vec<usize>,
    /// Keys and values of each layer.
    cache: Vec<[Region; 2]>,
    /// Least recently used first.
    ready: Vec<Prepared>,
}

/// A program bound to neighbouring rows, with everything a run needs in place.
struct Prepared {
    first: usize,
    shape: LmShape,
    ready: Box<dyn Ready>,
    ids: Region,
    positions: Region,
    at: Region,
    lengths: Region,
    logits: Region,
    /// Host copies, so that a run allocates nothing.
    numbers: Vec<i32>,
    host: Vec<f32>,
}

impl Session<'_> {
    /// Tokens of a row.
    pub fn len(&self, row: usize) -> usize {
        self.lengths[row]
    }

    /// Whether a row has no tokens.
    pub fn is_empty(&self, row: usize) -> bool {
        self.lengths[row] == 0
    }

    /// Bytes of the keys and values of all rows.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.iter().flatten().map(|r| r.bytes() as u64).sum()
    }

    /// Tokens a row has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets all tokens of a row but the first `len`.
    pub fn truncate(&mut self, row: usize, len: usize) {
        self.lengths[row] = self.lengths[row].min(len);
    }

    /// Makes row `to` hold what row `from` holds.
    pub fn copy(&mut self, from: usize, to: usize) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let cache = self.cache.clone();
        self.take(&cache, from, self.lengths[from], to)
    }

    /// Makes row `to` hold what row `row` of another session of the same model holds.
    pub fn copy_from(&mut self, other: &Session, row: usize, to: usize) -> Result<()> {
        if !std::ptr::eq(self.model, other.model) {
            return Err(Error::Bug("a row of another model cannot be taken".into()));
        }
        self.take(&other.cache, row, other.lengths[row], to)
    }

    /// Copies the first `len` positions of row `from` of `cache` to row `to`.
    fn take(&mut self, cache: &[[Region; 2]], from: usize, len: usize, to: usize) -> Result<()> {
        let model = self.model;
        if len > self.capacity {
            return Err(Error::Bug(format!(
                "{len} tokens exceed the {} positions of a row",
                self.capacity
            )));
        }
        if len > 0 {
            let program = copy_prefix(&model.config, model.math, len, self.capacity)?;
            let at = Region::zeros(model.backend(), &[1], DType::I32)?;
            let mut inputs = vec![("at".to_string(), at)];
            for (i, (theirs, ours)) in cache.iter().zip(&self.cache).enumerate() {
                for ((name, theirs), ours) in cache_names(i).into_iter().zip(theirs).zip(ours) {
                    inputs.push((format!("from.{name}"), theirs.slab(from).first(len)));
                    inputs.push((name, ours.slab(to)));
                }
            }
            let inputs: Vec<(&str, &Region)> = inputs.iter().map(|(n, r)| (&**n, r)).collect();
            prepare(model.backend(), &program, &model.weights, &inputs, &[])?.run(&[])?;
        }
        self.lengths[to] = len;
        Ok(())
    }

    /// Reads tokens behind those of one row, in chunks, and gives the logits that `head` asks for
    /// of what follows the last one. Asks `watch` before every chunk whether to stop.
    pub fn feed(
        &mut self,
        row: usize,
        ids: &[u32],
        head: Head,
        watch: &dyn Watch,
    ) -> Result<&[f32]> {
        let (before, last) = ids.split_at(ids.len().saturating_sub(1) / CHUNK * CHUNK);
        for chunk in before.chunks(CHUNK) {
            stop_if_cancelled(watch)?;
            self.run(row, 1, chunk, Head::None)?;
        }
        stop_if_cancelled(watch)?;
        self.run(row, 1, last, head)
    }

    /// Appends one token to each of neighbouring rows, from row `first` on, and gives the logits
    /// of what follows, row after row.
    pub fn step(&mut self, first: usize, ids: &[u32], head: Head) -> Result<&[f32]> {
        self.run(first, ids.len(), ids, head)
    }

    /// Keys and values `(T, G, D)` of a row, for comparisons.
    pub fn cached(&self, layer: usize, row: usize) -> Result<[Vec<f32>; 2]> {
        let [k, v] = &self.cache[layer];
        let read = |state: &Region| {
            let rows = state.slab(row).first(self.lengths[row]);
            rows.read_f32(self.model.backend())
        };
        Ok([read(k)?, read(v)?])
    }

    fn run(&mut self, first: usize, rows: usize, ids: &[u32], head: Head) -> Result<&[f32]> {
        let tokens = ids.len() / rows.max(1);
        self.check(first, rows, tokens)?;
        let shape = LmShape {
            rows,
            tokens,
            capacity: self.capacity,
            head,
        };
        let known = |p: &Prepared| p.first == first && p.shape == shape;
        let p = match self.ready.iter().position(known) {
            Some(i) => self.ready.remove(i),
            None => {
                if self.ready.len() >= READY {
                    self.ready.remove(0);
                }
                self.prepare(first, shape)?
            }
        };
        self.ready.push(p);
        let lengths = &mut self.lengths[first..first + rows];
        let backend = self.model.backend();
        if let Some(p) = self.ready.last_mut() {
            p.run(backend, ids, lengths)?;
        }
        lengths.iter_mut().for_each(|l| *l += tokens);
        self.logits()
    }

    /// Copies the logits of the last run from the device once more; none without a run or a head.
    pub fn logits(&mut self) -> Result<&[f32]> {
        match self.ready.last_mut() {
            Some(p) => p.read(self.model.backend()),
            None => Ok(&[]),
        }
    }

    fn check(&self, first: usize, rows: usize, tokens: usize) -> Result<()> {
        if tokens == 0 {
            return Err(Error::Bug("no tokens to read".into()));
        }
        let Some(lengths) = self.lengths.get(first..first + rows) else {
            return Err(Error::Bug(format!(
                "rows {first}..{} of {} are continued",
                first + rows,
                self.lengths.len()
            )));
        };
        match lengths.iter().find(|len| **len + tokens > self.capacity) {
            Some(len) => Err(Error::Bug(format!(
                "{tokens} tokens behind {len} exceed the {} positions of a row",
                self.capacity
            ))),
            None => Ok(()),
        }
    }

    fn prepare(&self, first: usize, shape: LmShape) -> Result<Prepared> {
        let (model, backend) = (self.model, self.model.backend());
        let LmShape { rows, tokens, .. } = shape;
        let program = forward(&model.config, model.math, shape)?;
        let ints = |shape: &[usize]| Region::zeros(backend, shape, DType::I32);
        let (ids, positions) = (ints(&[rows, tokens])?, ints(&[rows, tokens])?);
        let (at, lengths) = (ints(&[rows])?, ints(&[rows])?);
        let width = shape.head.len(model.config.vocab_size);
        let (result, width) = match shape.head {
            Head::None => ("hidden", model.config.hidden_size),
            _ => ("logits", width),
        };
        let logits = Region::zeros(backend, &[rows, width], DType::F32)?;
        let states: Vec<(String, Region)> = (0..self.cache.len())
            .flat_map(|i| cache_names(i).into_iter().zip(&self.cache[i]))
            .map(|(name, state)| (name, state.items(first, rows)))
            .collect();
        let mut inputs = vec![
            ("ids", &ids),
            ("positions", &positions),
            ("at", &at),
            ("lengths", &lengths),
        ];
        inputs.extend(states.iter().map(|(name, state)| (&**name, state)));
        let outputs = [(result, &logits)];
        Ok(Prepared {
            first,
            shape,
            ready: prepare(backend, &program, &model.weights, &inputs, &outputs)?,
            ids,
            positions,
            at,
            lengths,
            numbers: Vec::with_capacity(rows * tokens),
            host: match shape.head {
                Head::None => Vec::new(),
                _ => vec![0.0; logits.len()],
            },
            logits,
        })
    }
}

impl Prepared {
    /// Runs over rows that have these lengths before.
    fn run(&mut self, backend: &dyn Backend, ids: &[u32], lengths: &[usize]) -> Result<()> {
        let tokens = self.shape.tokens;
        let numbers = &mut self.numbers;
        let mut write = |to: &Region, from: &mut dyn Iterator<Item = usize>| {
            numbers.clear();
            // Tokens and positions are far below 2^31; a kernel refuses what is not.
            numbers.extend(from.map(|n| n as i32));
            to.write_i32(backend, numbers)
        };
        write(&self.ids, &mut ids.iter().map(|id| *id as usize))?;
        let positions = lengths.iter().flat_map(|len| *len..len + tokens);
        write(&self.positions, &mut { positions })?;
        write(&self.at, &mut lengths.iter().copied())?;
        write(&self.lengths, &mut lengths.iter().map(|len| len + tokens))?;
        self.ready.run(&[])
    }

    /// The logits of the last run.
    fn read(&mut self, backend: &dyn Backend) -> Result<&[f32]> {
        if !self.host.is_empty() {
            self.logits.read_f32_at(backend, 0, &mut self.host)?;
        }
        // The exponent of what is not finite has all its bits.
        let finite = |bits: u32| bits & 0x7f80_0000 != 0x7f80_0000;
        // No early end, so that the loop becomes vector code.
        let all = |part: &[f32]| part.iter().fold(true, |all, x| all & finite(x.to_bits()));
        if self.host.chunks(1024).all(all) {
            return Ok(&self.host);
        }
        Err(Error::Device(
            "the language model gave numbers that are not finite: its weights are damaged, or the \
             device is faulty"
                .into(),
        ))
    }
}

fn stop_if_cancelled(watch: &dyn Watch) -> Result<()> {
    match watch.cancelled() {
        true => Err(Error::Cancelled),
        false => Ok(()),
    }
}
