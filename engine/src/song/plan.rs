//! The planner: from what a user wrote to metadata and audio codes, or to a description.
//!
//! Generation has two phases. The first reasons: one sequence, without guidance, writes the
//! metadata the user left open. The second writes the codes of every song from the finished
//! metadata, each song in two rows of one batch, conditional and unconditional.
//!
//! The codes of a song depend on the finished metadata and its own seed, not on the songs beside
//! it. The metadata is one for all songs, drawn with the first seed.

use super::choose::{Chooser, Logits};
use super::describe::Facts;
use super::engine::DEFAULT_DURATION_S;
use super::fit_planner::CodeShape;
use super::language_model::{LanguageModel, Session};
use super::progress::Part;
use super::{Stage, Watch};
use crate::backend::Device;
use crate::error::{Error, Result};
use crate::models::language_model::Head;
use crate::sample::logits::TokenSampling;
use crate::sample::noise::Stream;
use crate::text::codes::code_count;
use crate::text::grammar::{Event, Machine, Phase, Settings};
use crate::text::{Grammar, LmOutput, LmPrompt, LmTokenizer, LmVocabulary, Metadata, parse_output};
use crate::weights::Checkpoints;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Songs whose codes are written at once. With two rows each they are few enough that every
/// backend computes a row of the batch as it computes the row alone, bit by bit.
const SONGS: usize = 4;
/// Most tokens of a completion that the grammar does not bound.
pub const COMPLETION_TOKENS: usize = 3500;
/// Most tokens of constrained reasoning beside the values the user gave: a caption has at most
/// 512, everything else fewer than 100.
const REASONING_TOKENS: usize = 768;

/// Most tokens of a prompt. Upstream plans for 4096 of prompt and answer; the longest prompt of
/// its example songs has 1982. Ten minutes of codes to describe stay below, too.
pub const MAX_PROMPT_TOKENS: usize = 8192;

/// Runs of the model, each with a stream of its own: those of one request draw from one seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Run {
    /// The first phase.
    Reasoning = 0,
    /// The second phase.
    Codes = 1,
    /// A song from a wish, or what is heard in codes.
    Description = 2,
    /// Caption and lyrics in other words.
    Rewriting = 3,
}

impl Run {
    fn stream(self) -> Stream {
        Stream::tokens(self as u32)
    }
}

/// What songs are planned from.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// Description of the music.
    pub caption: String,
    /// Lyrics.
    pub lyrics: String,
    /// What is known: it is written as it is.
    pub known: Facts,
    /// Whether the model writes the metadata that is missing.
    pub reason: bool,
    /// Whether the model rewrites the caption while it reasons.
    pub write_caption: bool,
    /// Whether the model names the language while it reasons.
    pub write_language: bool,
    /// What the music should not be; blank for nothing in particular.
    pub negative: String,
    /// How tokens are drawn. Guidance is that of the codes; reasoning has none.
    pub sampling: TokenSampling,
    /// One seed per song; reasoning takes the first.
    pub seeds: Vec<u64>,
    /// Whether codes are wanted, and not only metadata.
    pub codes: bool,
    /// Whether several songs are written at once. It changes how long it takes, nothing else.
    pub batch: bool,
    /// Whether the grammar is kept.
    pub constrained: bool,
    /// Whether the grammar records what it does.
    pub debug: bool,
}

/// What the planner made.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Metadata of all songs.
    pub metadata: Metadata,
    /// Audio codes of each song; none when they were not wanted.
    pub codes: Vec<Vec<u32>>,
    /// Seconds of music the codes are for; `None` when they were not wanted.
    pub target_s: Option<f64>,
    /// Seconds the metadata took.
    pub reason_s: f64,
    /// Seconds the codes took.
    pub codes_s: f64,
    /// What the grammar did, when asked for.
    pub events: Vec<Event>,
}

/// A language model with the grammar of its vocabulary.
pub struct Planner {
    lm: LanguageModel,
    grammar: Arc<Grammar>,
    max_duration_s: u32,
}

impl Planner {
    /// Maps and checks the language model of this name (without one, the first there is) and
    /// reads its tokenizer. Songs are at most `max_duration_s` long.
    pub fn open(
        tree: &Checkpoints,
        name: Option<&str>,
        device: Device,
        max_duration_s: u32,
    ) -> Result<Self> {
        let dir = &tree.lm(name)?.path;
        let tokenizer = LmTokenizer::load(dir)?;
        let lm = LanguageModel::open(tree, name, device)?;
        let (known, rows) = (tokenizer.vocabulary().size(), lm.config.vocab_size);
        if known as usize > rows {
            return Err(Error::Corrupt(format!(
                "{}: the tokenizer has {known} tokens, the model only {rows} embedding rows: the \
                 files do not belong together, download both again",
                dir.display()
            )));
        }
        Ok(Planner {
            lm,
            grammar: Arc::new(Grammar::new(Arc::new(tokenizer), max_duration_s)?),
            max_duration_s,
        })
    }

    /// The language model.
    pub fn language_model(&self) -> &LanguageModel {
        &self.lm
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &LmTokenizer {
        self.grammar.tokenizer()
    }

    fn vocabulary(&self) -> &LmVocabulary {
        self.grammar.vocabulary()
    }

    /// Codes that a diffusion model cannot read are found before they are written.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when `dit`, which knows `known` codes, knows fewer than are written.
    pub fn check_codes(&self, dit: &str, known: usize) -> Result<()> {
        let written = self.vocabulary().legal_codes().len();
        if written <= known {
            return Ok(());
        }
        Err(Error::Corrupt(format!(
            "{} writes {written} audio codes, {dit} knows {known}: the folders do not belong \
             together, load another language model",
            self.lm.name
        )))
    }

    /// Plans the songs of a request.
    ///
    /// # Errors
    /// [`Error::Request`] before anything is computed when a prompt has more than
    /// [`MAX_PROMPT_TOKENS`], and what sessions and the model report.
    pub fn plan(&self, request: &PlanRequest, watch: &dyn Watch) -> Result<Plan> {
        let start = Instant::now();
        let mut plan = Plan::default();
        self.check_prompts(request)?;
        let reasoned = match request.reason && !request.known.is_complete() {
            true => Some(self.reason(request, &mut plan, watch)?),
            false => {
                plan.metadata = request.known.metadata();
                None
            }
        };
        plan.reason_s = start.elapsed().as_secs_f64();
        if !request.codes {
            plan.codes = vec![Vec::new(); request.seeds.len()];
            return Ok(plan);
        }
        let start = Instant::now();
        self.write_codes(request, &mut plan, reasoned.as_ref(), watch)?;
        plan.codes_s = start.elapsed().as_secs_f64();
        Ok(plan)
    }

    /// Looks at the length of both phases' prompts. What the first phase adds to the second one's
    /// is bounded by itself.
    fn check_prompts(&self, request: &PlanRequest) -> Result<()> {
        let (caption, lyrics) = (&request.caption, &request.lyrics);
        let prompt = LmPrompt::codes(caption, lyrics, &request.known.metadata());
        check_length(&prompt.ids(self.tokenizer())?, "the caption or the lyrics")?;
        if request.codes && request.sampling.guidance > 1.0 {
            let negative = LmPrompt::codes_unconditional(&request.negative);
            check_length(&negative.ids(self.tokenizer())?, "the negative prompt")?;
        }
        Ok(())
    }

    /// Lets the model answer a prompt of [`LmPrompt::inspire`], [`LmPrompt::format`] or
    /// [`LmPrompt::understand`]: reasoning within `settings`, then lyrics.
    ///
    /// # Errors
    /// [`Error::Request`] for a prompt of more than [`MAX_PROMPT_TOKENS`] or with codes the model
    /// does not know, [`Error::TooBig`], [`Error::Cancelled`].
    pub fn complete_prompt(
        &self,
        prompt: &LmPrompt,
        settings: Settings,
        how: &Completion,
        watch: &dyn Watch,
    ) -> Result<Completed> {
        let prompt = prompt.ids(self.tokenizer())?;
        check_length(&prompt, "the texts, or give fewer audio codes")?;
        let (seed, most) = (how.seed, how.most);
        let mut session = self.lm.session(1, prompt.len() + most)?;
        let mut machine = Machine::new(self.grammar.clone(), settings, &prompt)?;
        let chooser = Chooser::new(&how.sampling, how.run.stream());
        let start = Start { prompt, seed, most };
        let ids = self.complete(&mut session, &start, &mut machine, chooser, watch)?;
        Ok(Completed {
            output: parse_output(&self.vocabulary().decode(&ids, false)),
            is_cut_off: !machine.finished(),
            events: machine.take_events(),
        })
    }

    /// The first phase. Returns what was read of its prompt, which begins the second one's.
    fn reason(
        &self,
        request: &PlanRequest,
        plan: &mut Plan,
        watch: &dyn Watch,
    ) -> Result<Reasoned<'_>> {
        let prompt = LmPrompt::reason(&request.caption, &request.lyrics).ids(self.tokenizer())?;
        let user = request.known.injected();
        let given: usize = user.values().map(String::len).sum();
        let most = match request.constrained {
            true => REASONING_TOKENS + given,
            false => COMPLETION_TOKENS,
        };
        let settings = Settings {
            stop_at_reasoning: true,
            skip_caption: !request.write_caption,
            skip_language: !request.write_language,
            user,
            constrained: request.constrained,
            debug: request.debug,
            ..Settings::new(Phase::Cot)
        };
        let mut machine = Machine::new(self.grammar.clone(), settings, &prompt)?;
        let mut session = self.lm.session(1, prompt.len() + most)?;
        let chooser = Chooser::new(&request.sampling, Run::Reasoning.stream());
        let seed = request.seeds.first().copied().unwrap_or(0);
        let start = Start { prompt, seed, most };
        let ids = self.complete(&mut session, &start, &mut machine, chooser, watch)?;
        let prompt = start.prompt;
        plan.events.extend(machine.take_events());
        let written = parse_output(&self.vocabulary().decode(&ids, false)).metadata;
        plan.metadata = merged(request, written);
        session.truncate(0, prompt.len());
        Ok(Reasoned { session, prompt })
    }

    /// Reads the prompt into row 0 and writes what follows, until the machine has finished or
    /// there are as many tokens as may be.
    fn complete(
        &self,
        session: &mut Session,
        start: &Start,
        machine: &mut Machine,
        mut chooser: Chooser,
        watch: &dyn Watch,
    ) -> Result<Vec<u32>> {
        let most = start.most;
        let (mut pending, mut written) = (start.prompt.clone(), Vec::new());
        watch.progress(Stage::Reason, 0, most);
        while !machine.finished() && written.len() < most {
            let id = match machine.forced() {
                Some(id) => id,
                None => {
                    // Forced tokens are read together with the one before them.
                    let head = head_of(machine.looked_at());
                    let logits = Logits {
                        first: head.start() as u32,
                        conditional: session.feed(0, &pending, head, watch)?,
                        unconditional: None,
                    };
                    pending.clear();
                    chooser.next(logits, &written, machine, start.seed)?
                }
            };
            machine.advance(id)?;
            written.push(id);
            pending.push(id);
            watch.progress(Stage::Reason, written.len(), most);
        }
        // A machine that ends itself may have ended early.
        watch.progress(Stage::Reason, most, most);
        Ok(written)
    }

    /// The second phase.
    fn write_codes(
        &self,
        request: &PlanRequest,
        plan: &mut Plan,
        reasoned: Option<&Reasoned>,
        watch: &dyn Watch,
    ) -> Result<()> {
        let longest = f64::from(self.max_duration_s);
        let wanted = request.known.duration_s.filter(|s| *s > 0.0);
        let target_s = wanted.or_else(|| plan.metadata.known_duration());
        let target_s = target_s.unwrap_or(DEFAULT_DURATION_S).min(longest);
        plan.target_s = Some(target_s);
        let conditional = LmPrompt::codes(&request.caption, &request.lyrics, &plan.metadata);
        let guided = request.sampling.guidance > 1.0;
        let unconditional = LmPrompt::codes_unconditional(&request.negative);
        let job = CodeJob {
            request,
            target_s,
            most: code_count(target_s).max(1),
            conditional: conditional.ids(self.tokenizer())?,
            unconditional: match guided {
                true => Some(unconditional.ids(self.tokenizer())?),
                false => None,
            },
            head: self.code_head(),
            reasoned,
        };
        let at_once = self.songs_at_once(&job)?;
        let of = request.seeds.len().div_ceil(at_once);
        for (index, seeds) in request.seeds.chunks(at_once).enumerate() {
            let mut songs = self.code_batch(&job, seeds, &Part { watch, index, of })?;
            for (codes, machine) in &mut songs {
                plan.codes.push(std::mem::take(codes));
                plan.events.extend(machine.take_events());
            }
        }
        Ok(())
    }

    /// The grammar.
    pub fn grammar(&self) -> &Arc<Grammar> {
        &self.grammar
    }

    /// The logits that can be sampled: those of the legal codes. The end comes by counting.
    pub fn code_head(&self) -> Head {
        head_of(self.vocabulary().legal_codes())
    }

    /// How many songs of a job are written at once: as many as fit into memory.
    fn songs_at_once(&self, job: &CodeJob) -> Result<usize> {
        let reasoned = |r: &Reasoned| r.session.cache_bytes();
        let shape = CodeShape {
            rows: job.rows(),
            prompt: job.prompt(),
            codes: job.most,
            head: job.head,
            beside: job.reasoned.map_or(0, reasoned),
        };
        let most = if job.request.batch { SONGS } else { 1 };
        let have = self.lm.backend().caps().memory_bytes;
        let songs = most.min(job.request.seeds.len());
        self.lm.fit().songs_at_once(songs, &shape, have)
    }

    /// Codes of the songs of `seeds`, all at once.
    fn code_batch(
        &self,
        job: &CodeJob,
        seeds: &[u64],
        watch: &dyn Watch,
    ) -> Result<Vec<(Vec<u32>, Machine)>> {
        watch.progress(Stage::Codes, 0, job.most);
        let (songs, width) = (seeds.len(), job.head.len(self.lm.config.vocab_size));
        let mut session = self.open_rows(job, songs)?;
        let mut logits = self.read_prompts(job, &mut session, songs, watch)?;
        let mut machines = Vec::with_capacity(songs);
        for _ in seeds {
            let machine = Machine::new(self.grammar.clone(), job.settings(), &job.conditional)?;
            machines.push((Vec::with_capacity(job.most), machine));
        }
        let end = self.vocabulary().control().turn_end;
        let mut next = vec![end; logits.len() / width.max(1)];
        let mut chooser = Chooser::new(&job.request.sampling, Run::Codes.stream());
        for step in 0..job.most {
            for (i, ((codes, machine), seed)) in machines.iter_mut().zip(seeds).enumerate() {
                // The row of a song that has ended goes on with ends, which nobody looks at.
                next[i] = end;
                if !machine.finished() {
                    let row = |i: usize| &logits[i * width..][..width];
                    let logits = Logits {
                        first: job.head.start() as u32,
                        conditional: row(i),
                        unconditional: job.unconditional.as_ref().map(|_| row(songs + i)),
                    };
                    next[i] = chooser.next(logits, codes, machine, *seed)?;
                    machine.advance(next[i])?;
                    codes.push(next[i]);
                }
                if job.unconditional.is_some() {
                    next[songs + i] = next[i];
                }
            }
            watch.progress(Stage::Codes, step + 1, job.most);
            if step + 1 == job.most || machines.iter().all(|(_, m)| m.finished()) {
                break;
            }
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            logits.copy_from_slice(session.step(0, &next, job.head)?);
        }
        watch.progress(Stage::Codes, job.most, job.most);
        for (ids, _) in &mut machines {
            *ids = ids
                .iter()
                .filter_map(|id| self.vocabulary().code_of(*id))
                .collect();
        }
        Ok(machines)
    }

    /// Rows for songs: the conditional ones, then the unconditional ones.
    fn open_rows(&self, job: &CodeJob, songs: usize) -> Result<Session<'_>> {
        self.lm.session(songs * job.rows(), job.prompt() + job.most)
    }

    /// Reads both prompts once and copies them to the rows of every song; gives the logits behind
    /// them, row after row.
    fn read_prompts(
        &self,
        job: &CodeJob,
        session: &mut Session,
        songs: usize,
        watch: &dyn Watch,
    ) -> Result<Vec<f32>> {
        let mut logits = Vec::new();
        let shared = match job.reasoned {
            Some(reasoned) => {
                session.copy_from(&reasoned.session, 0, 0)?;
                let same = reasoned.prompt.iter().zip(&job.conditional);
                same.take_while(|(a, b)| a == b).count()
            }
            None => 0,
        };
        // At least one token is read: the logits are those behind the last one.
        session.truncate(0, shared.min(job.conditional.len() - 1));
        let read = session.len(0);
        let prompts = [Some(&job.conditional[read..]), job.unconditional.as_deref()];
        for (side, prompt) in prompts.into_iter().flatten().enumerate() {
            let first = side * songs;
            let row = session.feed(first, prompt, job.head, watch)?.to_vec();
            for song in 0..songs {
                session.copy(first, first + song)?;
                logits.extend_from_slice(&row);
            }
        }
        Ok(logits)
    }
}

/// The user's values, and beside them what the model wrote. Without the grammar it may have
/// written anything: what is not legal, or was not asked for, is as good as not written.
fn merged(request: &PlanRequest, written: Metadata) -> Metadata {
    let known = &request.known;
    let facts = known.clone().or(Facts::legal(&written));
    let language = match request.constrained {
        // Also that it is unknown.
        true => known.language.clone().or(written.language),
        false => facts.language.clone(),
    };
    Metadata {
        caption: written.caption.filter(|_| request.write_caption),
        language: language.filter(|_| request.write_language),
        ..facts.metadata()
    }
}

/// Refuses a prompt that is too long; `what` can be shortened.
fn check_length(prompt: &[u32], what: &str) -> Result<()> {
    match prompt.len() {
        ..=MAX_PROMPT_TOKENS => Ok(()),
        len => Err(Error::Request(format!(
            "the language model would have to read {len} tokens, at most {MAX_PROMPT_TOKENS} are \
             possible: shorten {what}"
        ))),
    }
}

/// How a prompt is answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Completion {
    /// Which of a request's runs this is.
    pub run: Run,
    /// How tokens are drawn. Guidance has no effect.
    pub sampling: TokenSampling,
    /// Seed of the draws.
    pub seed: u64,
    /// Most tokens of the answer.
    pub most: usize,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completed {
    /// What it holds.
    pub output: LmOutput,
    /// Whether it went on where the limit of tokens ended it.
    pub is_cut_off: bool,
    /// What the grammar did, when asked for.
    pub events: Vec<Event>,
}

/// What a completion begins with, and how long it may become.
struct Start {
    prompt: Vec<u32>,
    seed: u64,
    most: usize,
}

/// A head for these tokens.
pub fn head_of(ids: Range<u32>) -> Head {
    Head::Rows {
        start: ids.start as usize,
        len: ids.len(),
    }
}

/// The first phase's prompt and the row that holds it.
struct Reasoned<'a> {
    session: Session<'a>,
    prompt: Vec<u32>,
}

/// What all songs of the second phase share.
struct CodeJob<'a> {
    request: &'a PlanRequest,
    target_s: f64,
    /// Codes of a song.
    most: usize,
    conditional: Vec<u32>,
    unconditional: Option<Vec<u32>>,
    head: Head,
    reasoned: Option<&'a Reasoned<'a>>,
}

impl CodeJob<'_> {
    /// Rows of one song.
    fn rows(&self) -> usize {
        1 + usize::from(self.unconditional.is_some())
    }

    /// Tokens of the longer prompt.
    fn prompt(&self) -> usize {
        let other = self.unconditional.as_ref().map_or(0, Vec::len);
        other.max(self.conditional.len())
    }

    /// Codes are always constrained: nothing else can be made into music.
    fn settings(&self) -> Settings {
        Settings {
            target_s: Some(self.target_s),
            debug: self.request.debug,
            ..Settings::new(Phase::Codes)
        }
    }
}
