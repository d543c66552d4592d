//! How fast the compute threads read memory: the limit of everything that reads its weights once.

use super::level::Level;
use super::memory::Aligned;
use super::pool::Pool;
use super::vecmath::leveled;
use crate::error::Result;
use std::hint::black_box;
use std::time::Instant;

/// Bytes that are read: far more than any cache holds.
const BYTES: usize = 1 << 30;
/// Bytes of one job.
const JOB: usize = 1 << 20;
/// How often they are read. The fastest pass counts: what else runs on the machine only slows one
/// down.
const PASSES: usize = 5;

/// Bytes per second of a plain read, all threads together.
pub fn read_rate(pool: &Pool, level: Level) -> Result<f64> {
    let mut memory = Aligned::zeroed(BYTES)?;
    // Memory that was never written is one page of zeros over and over.
    let words: &mut [u64] = bytemuck::cast_slice_mut(memory.bytes_mut());
    let job = JOB / size_of::<u64>();
    pool.pieces(words, job, |i, words| words.fill(i as u64));
    let words = &*words;
    let mut seconds = f64::INFINITY;
    for _ in 0..PASSES {
        let start = Instant::now();
        pool.run(words.len() / job, &|i, _| {
            black_box(combined(level, &words[i * job..][..job]));
        });
        seconds = seconds.min(start.elapsed().as_secs_f64());
    }
    Ok(BYTES as f64 / seconds)
}

#[inline(always)]
fn combined_body<const FMA: bool>(words: &[u64]) -> u64 {
    words.iter().fold(0, |all, word| all ^ word)
}

leveled! {
    /// All words combined, so that each has to be read.
    fn combined(words: &[u64]) -> u64 = combined_body
}
