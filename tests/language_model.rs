//! The language model over its cache: however a text is read (at once, in chunks, token by token,
//! alone or beside others), the same follows.

use engine::Error;
use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Device};
use engine::models::language_model::Head;
use engine::program::Math;
use engine::song::language_model::{CHUNK, LanguageModel, Session};
use engine::song::{NoWatch, Stage, Watch};
use engine::weights::Checkpoints;
use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use tests::random::Random;

fn model(math: Math) -> LanguageModel {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny");
    let tree = Checkpoints::open(&tree).expect("there is a tree");
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    let backend = Arc::new(backend) as Arc<dyn Backend>;
    LanguageModel::open(&tree, None, Device { backend, math }).expect("the model opens")
}

/// A text of random tokens.
fn text(name: &str, n: usize, lm: &LanguageModel) -> Vec<u32> {
    let mut random = Random::named(name);
    let vocabulary = lm.config.vocab_size;
    (0..n).map(|_| random.below(vocabulary) as u32).collect()
}

fn feed(session: &mut Session, row: usize, ids: &[u32]) -> Vec<f32> {
    let logits = session.feed(row, ids, Head::Full, &NoWatch);
    logits.expect("is read").to_vec()
}

/// `||a - b|| / ||b||`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let off = a.iter().zip(b).map(|(a, b)| square(f64::from(a - b)));
    let size: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (off.sum::<f64>() / size).sqrt()
}

fn near(a: &[f32], b: &[f32], limit: f64, what: &str) {
    let distance = distance(a, b);
    assert!(distance <= limit, "{what}: off by {distance:e}");
}

/// Limit in f32: sums in another order.
const F32: f64 = 1e-5;

#[test]
fn tokens_one_by_one_are_the_prompt_at_once() {
    for (math, limit, lengths) in [
        (Math::F32, F32, &[1, 2, 63, 64, 65, 500][..]),
        (Math::Bf16, 4e-2, &[2, 65]),
    ] {
        let lm = model(math);
        let ids = text("cache", 500, &lm);
        let mut session = lm.session(1, ids.len()).expect("there is memory");
        let mut at = 0;
        for &n in lengths {
            let mut step = Vec::new();
            for id in &ids[at..n] {
                let logits = session.step(0, &[*id], Head::Full).expect("is read");
                step = logits.to_vec();
            }
            at = n;
            assert_eq!(session.len(0), n);
            let mut whole = lm.session(1, n).expect("there is memory");
            let whole = feed(&mut whole, 0, &ids[..n]);
            near(&step, &whole, limit, &format!("{n} tokens, {math:?}"));
        }
    }
}

#[test]
fn chunks_are_the_prompt_at_once() {
    let lm = model(Math::F32);
    let ids = text("chunks", 2 * CHUNK + 3, &lm);
    let capacity = ids.len();
    let whole = feed(&mut lm.session(1, capacity).expect("memory"), 0, &ids);
    for cut in [1, 7, 100, CHUNK, CHUNK + 1, capacity - 1] {
        let mut session = lm.session(1, capacity).expect("memory");
        feed(&mut session, 0, &ids[..cut]);
        let parts = feed(&mut session, 0, &ids[cut..]);
        near(&parts, &whole, F32, &format!("cut at {cut}"));
    }
}

#[test]
fn a_row_of_a_batch_is_the_row_alone() {
    let lm = model(Math::F32);
    let vocabulary = lm.config.vocab_size;
    // Two rows, as many as the kernel of few rows takes, and more.
    for rows in [2, 4, 5, 16] {
        let prompts: Vec<Vec<u32>> = (0..rows)
            .map(|r| text(&format!("row {r}"), 3 + 11 * r, &lm))
            .collect();
        let steps = text("steps", 4 * rows, &lm);
        let mut batch = lm.session(rows, 200).expect("memory");
        for (r, prompt) in prompts.iter().enumerate() {
            feed(&mut batch, r, prompt);
        }
        let logits: Vec<Vec<f32>> = steps
            .chunks(rows)
            .map(|ids| batch.step(0, ids, Head::Full).expect("steps").to_vec())
            .collect();
        for (r, prompt) in prompts.iter().enumerate() {
            let mut alone = lm.session(1, 200).expect("memory");
            feed(&mut alone, 0, prompt);
            for (ids, batch) in steps.chunks(rows).zip(&logits) {
                let alone = alone.step(0, &ids[r..=r], Head::Full).expect("steps");
                let row = &batch[r * vocabulary..][..vocabulary];
                near(row, alone, F32, &format!("row {r} of {rows}"));
            }
        }
    }
}

#[test]
fn a_copied_prefix_is_read_once_and_continued_apart() {
    let lm = model(Math::F32);
    let (prefix, tail) = (text("prefix", 70, &lm), text("tail", 9, &lm));
    let mut session = lm.session(3, 90).expect("memory");
    feed(&mut session, 1, &prefix);
    feed(&mut session, 2, &tail);
    session.copy(1, 0).expect("is copied");
    session.copy(1, 2).expect("is copied over what was there");
    assert_eq!([0, 1, 2].map(|row| session.len(row)), [70; 3]);
    let continued = feed(&mut session, 0, &tail);
    let again = feed(&mut session, 2, &tail);
    assert_eq!(continued, again);
    let original = feed(&mut session, 1, &tail);
    assert_eq!(continued, original);
    // What was forgotten leaves no trace.
    session.truncate(0, 70);
    feed(&mut session, 0, &tail[..1]);
    session.truncate(0, 70);
    assert_eq!(feed(&mut session, 0, &tail), original);
}

#[test]
fn a_part_of_the_head_is_a_part_of_the_logits() {
    let lm = model(Math::Bf16);
    let ids = text("head", 5, &lm);
    let mut session = lm.session(2, 8).expect("memory");
    let full = feed(&mut session, 0, &ids);
    let head = Head::Rows {
        start: 3002,
        len: 77,
    };
    let part = session.feed(1, &ids, head, &NoWatch).expect("is read");
    assert_eq!(part, &full[3002..3079]);
    assert_eq!((head.start(), head.len(lm.config.vocab_size)), (3002, 77));
    let none = session.step(1, &ids[..1], Head::None).expect("is read");
    assert!(none.is_empty());
    assert_eq!(session.len(1), 6);
}

/// Stops when it was asked this often.
struct Patience(Cell<usize>);

impl Watch for Patience {
    fn progress(&self, _: Stage, _: usize, _: usize) {}

    fn cancelled(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left == 0
    }
}

#[test]
fn reading_stops_between_chunks() {
    let lm = model(Math::F32);
    let ids = text("stop", 2 * CHUNK + 1, &lm);
    let mut session = lm.session(1, ids.len()).expect("memory");
    let watch = Patience(Cell::new(2));
    let error = session
        .feed(0, &ids, Head::Full, &watch)
        .expect_err("stops");
    assert_eq!(error, Error::Cancelled);
    assert_eq!(session.len(0), 2 * CHUNK);
    let rest = feed(&mut session, 0, &ids[2 * CHUNK..]);
    let whole = feed(&mut lm.session(1, ids.len()).expect("memory"), 0, &ids);
    assert_eq!(rest, whole);
}

#[test]
fn what_does_not_fit_is_refused() {
    let lm = model(Math::F32);
    let too_long = lm.session(1, 40_961).err().expect("too many positions");
    assert!(matches!(&too_long, Error::Request(why) if why.contains("40960 positions")));
    let too_many = lm.session(1 << 40, 1).err().expect("too much memory");
    assert!(matches!(too_many, Error::TooBig { .. }), "{too_many}");
    let mut session = lm.session(2, 4).expect("memory");
    feed(&mut session, 0, &[1, 2, 3]);
    for (first, ids) in [(0, &[1, 1, 1][..]), (2, &[1]), (0, &[])] {
        assert!(session.step(first, ids, Head::Full).is_err(), "{ids:?}");
    }
    let beyond = session.feed(0, &[1, 1], Head::Full, &NoWatch);
    assert!(beyond.is_err_and(|e| e.to_string().contains("4 positions")));
    let unknown = session.step(0, &[lm.config.vocab_size as u32], Head::Full);
    assert!(unknown.is_err_and(|e| e.to_string().contains("outside the vocabulary")));
    // What failed changed nothing.
    assert_eq!(session.len(0), 3);
    session
        .step(0, &[1], Head::Full)
        .expect("there is room for one");
}
