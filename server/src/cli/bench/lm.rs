//! The stages of the language model: its prompt, a token in the two states that take the most
//! time, and what choosing that token takes from its logits.

use super::{Args, Row, clock};
use engine::models::language_model::Head;
use engine::sample::logits::TokenSampling;
use engine::sample::noise::Stream;
use engine::song::NoWatch;
use engine::song::choose::{Chooser, Logits};
use engine::song::language_model::Session;
use engine::song::plan::{Planner, head_of};
use engine::text::grammar::{Field, Machine, Phase, Settings, State};
use engine::{Error, Result};
use std::hint::black_box;

/// How often a choice is timed for each time a step is: it takes far less.
const CHOICES: usize = 8;
/// More than the default, so that the penalty is measured too.
const PENALTY: f32 = 1.1;

/// The planner, what is measured of it, and the rate of reading memory, in bytes per second.
struct Bench<'a> {
    planner: &'a Planner,
    args: &'a Args,
    rate: Option<f64>,
}

/// A prompt, one audio code for every song, one token of a caption.
pub fn measure(planner: &Planner, args: &Args, rate: Option<f64>) -> Result<Vec<Row>> {
    let bench = Bench {
        planner,
        args,
        rate,
    };
    let (lm, rows, len) = (planner.language_model(), 2 * args.lm_songs, args.lm_len);
    let vocabulary = lm.config.vocab_size as u32;
    let ids: Vec<u32> = (0..len as u32)
        .map(|i| i.wrapping_mul(7919) % vocabulary)
        .collect();
    let mut session = lm.session(rows, len + 1)?;
    let prompt = clock("lm prompt", args.repeat, format!("{len} tokens"), || {
        session.truncate(0, 0);
        session.feed(0, &ids, Head::None, &NoWatch).map(drop)
    })?;
    for row in 1..rows {
        session.copy(0, row)?;
    }
    let mut all = vec![prompt];
    let mut machine = in_codes(planner)?;
    let head = planner.code_head();
    all.extend(bench.token(
        "lm token",
        "lm sample",
        &mut session,
        rows,
        head,
        &mut machine,
    )?);
    let mut machine = in_caption(planner)?;
    let head = head_of(machine.looked_at());
    let names = ("lm caption", "lm sample text");
    all.extend(bench.token(names.0, names.1, &mut session, 1, head, &mut machine)?);
    Ok(all)
}

impl Bench<'_> {
    /// A step over the first `rows` rows, and what turns its logits into tokens.
    fn token(
        &self,
        step: &'static str,
        choice: &'static str,
        session: &mut Session,
        rows: usize,
        head: Head,
        machine: &mut Machine,
    ) -> Result<[Row; 2]> {
        let (len, lm) = (self.args.lm_len, self.planner.language_model());
        let next = vec![0; rows];
        let mut note = format!("{rows} rows, {len} tokens before, head of {}", head.len(0));
        let traffic = lm.traffic(rows, len + 1, head)?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        note += &format!(
            ", {:.0} MB of weights and {:.0} MB of cache",
            megabytes(traffic.weights),
            megabytes(traffic.cache)
        );
        let mut step = clock(step, self.args.repeat, note, || {
            (0..rows).for_each(|row| session.truncate(row, len));
            session.step(0, &next, head).map(drop)
        })?;
        step.bytes = Some(traffic.bytes());
        step.read_share = self
            .rate
            .map(|rate| traffic.bytes() as f64 / rate / step.seconds);
        if let Some(share) = step.read_share {
            step.note += &format!(": {:.0} % of the rate of reading", 100.0 * share);
        }
        let choice = self.choice(choice, session, rows, head, machine, &step)?;
        Ok([step, choice])
    }

    /// One token for every song from the logits of the last step, their copy from the device
    /// included: conditional rows first, then the unconditional ones, as the planner has them.
    fn choice(
        &self,
        name: &'static str,
        session: &mut Session,
        rows: usize,
        head: Head,
        machine: &mut Machine,
        step: &Row,
    ) -> Result<Row> {
        let how = TokenSampling {
            repetition_penalty: PENALTY,
            ..TokenSampling::default()
        };
        let mut chooser = Chooser::new(&how, Stream::tokens(0));
        let (width, songs) = (head.len(0), rows.div_ceil(2));
        let first = head.start() as u32;
        let tokens = width as u32 - 1;
        let written: Vec<u32> = (0..self.args.lm_len as u32)
            .map(|i| first + i.wrapping_mul(7919) % tokens)
            .collect();
        let mut seed = 0;
        let note = format!(
            "penalty, guidance over {} rows, mask, top-p {}, {songs} drawn",
            rows, how.top_p
        );
        let mut row = clock(name, CHOICES * self.args.repeat, note, || {
            let logits = session.logits()?;
            let row = |i: usize| &logits[i * width..][..width];
            seed += 1;
            for song in 0..songs {
                let logits = Logits {
                    first,
                    conditional: row(song),
                    unconditional: (rows > 1).then(|| row(songs + song)),
                };
                black_box(chooser.next(logits, &written, machine, seed)?);
            }
            Ok(())
        })?;
        let share = row.seconds / step.seconds;
        row.step_share = Some(share);
        row.note += &format!(": {:.2} % of the step", 100.0 * share);
        Ok(row)
    }
}

/// A machine that takes audio codes.
fn in_codes(planner: &Planner) -> Result<Machine> {
    let settings = Settings {
        target_s: Some(f64::from(u16::MAX)),
        ..Settings::new(Phase::Codes)
    };
    let reasoned = [planner.grammar().vocabulary().control().think_end];
    Machine::new(planner.grammar().clone(), settings, &reasoned)
}

/// A machine within a caption.
fn in_caption(planner: &Planner) -> Result<Machine> {
    let grammar = planner.grammar();
    let mut machine = Machine::new(grammar.clone(), Settings::new(Phase::Cot), &[])?;
    while machine.state() != State::Value(Field::Caption) {
        let id = match machine.forced() {
            Some(id) => id,
            None => machine.allowed(&[]).best(&[]),
        };
        machine.advance(id)?;
        if machine.finished() {
            return Err(Error::Bug("a reasoning without a caption".into()));
        }
    }
    Ok(machine)
}
