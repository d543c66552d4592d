//! From attention to the lines of an LRC file: which frame each token of the lyrics belongs to,
//! and which time each line therefore has. Upstream: `acestep/core/scoring/dit_alignment.py` and
//! `_dtw.py`.

use crate::error::Result;

/// How often a median is taken off before what remains counts.
const MEDIANS: f32 = 2.0;

/// Attention of one head: token by token, each a row of weights over the frames of the song.
pub type Map = Vec<f32>;

/// How much each token belongs to each frame, `(tokens, frames)`: where heads agree that a token
/// looks at a frame and the frame at the token, as far above the usual as both have it.
pub fn affinity(mut maps: Vec<Map>, frames: usize) -> Vec<f32> {
    let heads = maps.len().max(1) as f64;
    maps.iter_mut().for_each(|map| sharpen(map, frames));
    let n: usize = maps.iter().map(Vec::len).sum();
    let all = || maps.iter().flatten().map(|x| f64::from(*x));
    let mean = all().sum::<f64>() / n.max(1) as f64;
    let variance = all().map(|x| (x - mean).powi(2)).sum::<f64>() / n.max(1) as f64;
    let scale = 1.0 / (variance.sqrt() + 1e-9);
    let cells = maps.first().map_or(0, Vec::len);
    let of_cell = |i: usize| maps.iter().map(|map| f64::from(map[i])).sum::<f64>() / heads;
    (0..cells)
        .map(|i| ((of_cell(i) - mean) * scale) as f32)
        .collect()
}

/// The product of the softmaxes over frames and over tokens, less its medians, squared.
fn sharpen(map: &mut [f32], frames: usize) {
    let tokens = map.len() / frames.max(1);
    // Weights lie between 0 and 1, so that nothing overflows.
    let rows: Vec<f32> = map
        .chunks_exact(frames)
        .map(|row| row.iter().map(|x| x.exp()).sum())
        .collect();
    let mut columns = vec![0f32; frames];
    for row in map.chunks_exact(frames) {
        columns
            .iter_mut()
            .zip(row)
            .for_each(|(sum, x)| *sum += x.exp());
    }
    let mut scratch = vec![0f32; frames.max(tokens)];
    for (row, sum) in map.chunks_exact_mut(frames).zip(rows) {
        for (x, column) in row.iter_mut().zip(&columns) {
            let e = x.exp();
            *x = (e / sum) * (e / column);
        }
        scratch[..frames].copy_from_slice(row);
        let median = MEDIANS * median(&mut scratch[..frames]);
        row.iter_mut().for_each(|x| *x = (*x - median).max(0.0));
    }
    for at in 0..frames {
        let column = || (at..).step_by(frames).take(tokens);
        for (x, i) in scratch.iter_mut().zip(column()) {
            *x = map[i];
        }
        let median = MEDIANS * median(&mut scratch[..tokens]);
        for i in column() {
            map[i] = (map[i] - median).max(0.0).powi(2);
        }
    }
}

/// The middle element, or half way between the two middle ones. Reorders `x`.
fn median(x: &mut [f32]) -> f32 {
    let middle = x.len() / 2;
    let (below, &mut upper, _) = x.select_nth_unstable_by(middle, f32::total_cmp);
    match below.iter().copied().max_by(f32::total_cmp) {
        Some(lower) if below.len() == middle && x.len().is_multiple_of(2) => {
            lower + (upper - lower) * 0.5
        }
        _ => upper,
    }
}

/// The first and the last frame of every token on the path of the largest affinity that leads
/// from the first token and frame to the last, never back (dynamic time warping).
pub fn spans(affinity: &[f32], frames: usize) -> Vec<(usize, usize)> {
    let tokens = affinity.len() / frames.max(1);
    let mut steps = vec![Step::Frame; tokens * frames];
    // Costs of the paths to the frame before, and to this one; index 0 is before the first token.
    let mut before = vec![f32::INFINITY; tokens + 1];
    before[0] = 0.0;
    for frame in 0..frames {
        let mut now = vec![f32::INFINITY; tokens + 1];
        for token in 0..tokens {
            let (both, one, other) = (before[token], now[token], before[token + 1]);
            let (cost, step) = if both < one && both < other {
                (both, Step::Both)
            } else if one < both && one < other {
                (one, Step::Token)
            } else {
                (other, Step::Frame)
            };
            let here = -f64::from(affinity[token * frames + frame]);
            now[token + 1] = (here + f64::from(cost)) as f32;
            steps[token * frames + frame] = step;
        }
        before = now;
    }
    let mut spans = vec![(0, 0); tokens];
    let (mut token, mut frame) = (tokens, frames);
    let mut last = None;
    while token > 0 && frame > 0 {
        let (t, f) = (token - 1, frame - 1);
        if last != Some(t) {
            spans[t].1 = f;
            last = Some(t);
        }
        spans[t].0 = f;
        match steps[t * frames + f] {
            Step::Both => (token, frame) = (t, f),
            Step::Token => token = t,
            Step::Frame => frame = f,
        }
    }
    spans
}

/// What a path does to reach a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The next token with the next frame.
    Both,
    /// The next token in the same frame.
    Token,
    /// The next frame of the same token.
    Frame,
}

/// Lines of LRC, `[mm:ss.xx]text`: a line begins with the first frame of its first token and ends
/// with the token that holds its line end. `decode` turns tokens into text; a line is decoded as
/// a whole, for its letters may be spread over several tokens.
///
/// # Errors
/// Those of `decode`.
pub fn lines(
    ids: &[u32],
    spans: &[(usize, usize)],
    seconds_per_frame: f64,
    decode: &dyn Fn(&[u32]) -> Result<String>,
) -> Result<String> {
    let mut lines = Vec::new();
    let mut start = 0;
    for end in 1..=ids.len() {
        // No byte of a letter in several bytes reads as a line end: a token can be asked alone.
        if end < ids.len() && !decode(&ids[end - 1..end])?.contains('\n') {
            continue;
        }
        let text = decode(&ids[start..end])?;
        let first = spans.get(start).map_or(0, |span| span.0);
        if !text.trim().is_empty() {
            lines.push(format!(
                "{}{}",
                stamp(first as f64 * seconds_per_frame),
                text.trim()
            ));
        }
        start = end;
    }
    Ok(lines.join("\n"))
}

/// `[mm:ss.xx]`, rounded to thousandths before, as upstream does.
fn stamp(seconds: f64) -> String {
    let rounded: f64 = format!("{seconds:.3}").parse().unwrap_or(seconds);
    let text = format!("{rounded:.2}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, "00"));
    let whole: u64 = whole.parse().unwrap_or(0);
    format!("[{:02}:{:02}.{rest}]", whole / 60, whole % 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FRAMES: usize = 40;

    /// Two heads that see nine tokens pass by, over a pattern.
    fn maps() -> Vec<Map> {
        let weight = |h: usize, i: usize, j: usize| {
            let usual = ((h * 31 + i * 17 + j * 7) % 23) as f64 / 23.0 * 0.05;
            let near = j.abs_diff(2 + 4 * i + h) <= 2;
            (usual + if near { 0.6 } else { 0.0 }) as f32
        };
        let map = |h| {
            (0..9 * FRAMES)
                .map(|c| weight(h, c / FRAMES, c % FRAMES))
                .collect()
        };
        (0..2).map(map).collect()
    }

    /// Expected numbers here are those of upstream's own functions on these weights.
    #[test]
    fn affinities_are_those_of_upstream() {
        let ours = affinity(maps(), FRAMES);
        for (i, j, want) in [
            (0, 0, 0.922_805_67),
            (0, 2, 3.442_870_6),
            (1, 7, 3.080_446_7),
            (3, 15, 2.892_862_3),
            (8, 36, 3.018_679_9),
            (4, 20, 1.982_812_6),
        ] {
            let got = ours[i * FRAMES + j];
            assert!((got - want).abs() < 2e-4, "{i} {j}: {got}, not {want}");
        }
        let least = ours.iter().copied().fold(f32::INFINITY, f32::min);
        assert!((least + 0.367_293_66).abs() < 1e-5, "{least}");
    }

    #[test]
    fn every_token_has_its_frames() {
        let spans = spans(&affinity(maps(), FRAMES), FRAMES);
        let want = [
            (0, 4),
            (4, 8),
            (8, 12),
            (12, 16),
            (16, 20),
            (20, 24),
            (24, 29),
            (29, 32),
            (32, 39),
        ];
        assert_eq!(spans, want);
    }

    #[test]
    fn paths_never_go_back_and_ties_stay_with_the_token() {
        let costs = [1., 0., 2., 2., 2., 2., 0., 1., 0., 3., 3., 0.].map(|x: f32| -x);
        assert_eq!(spans(&costs, 4), [(0, 1), (2, 2), (3, 3)]);
        assert_eq!(spans(&[0.0; 15], 5), [(0, 0), (0, 0), (0, 4)]);
        assert_eq!(spans(&[1.0; 3], 1), [(0, 0); 3]);
        assert!(spans(&[], 4).is_empty());
    }

    #[test]
    fn lines_end_with_the_token_that_ends_them() {
        const TEXT: [&str; 9] = ["[", "verse", "]\n", "a", "b c\n", "\n", "d", "e", "é"];
        let decode = |ids: &[u32]| Ok(ids.iter().map(|i| TEXT[*i as usize]).collect());
        let ids: Vec<u32> = (0..9).collect();
        let spans = spans(&affinity(maps(), FRAMES), FRAMES);
        let text = lines(&ids, &spans, (FRAMES as f64 * 0.08 + 60.0) / 40.0, &decode).unwrap();
        assert_eq!(text, "[00:00.00][verse]\n[00:18.96]ab c\n[00:37.92]deé");
        assert_eq!(lines(&[], &[], 0.08, &decode).unwrap(), "");
        assert_eq!(
            lines(&[5, 5], &[(0, 1), (1, 2)], 0.08, &decode).unwrap(),
            ""
        );
    }

    #[test]
    fn stamps_carry_into_minutes() {
        for (seconds, text) in [
            (0.0, "[00:00.00]"),
            (65.125, "[01:05.12]"),
            (59.999, "[01:00.00]"),
            (3725.5, "[62:05.50]"),
        ] {
            assert_eq!(stamp(seconds), text);
        }
    }

    #[test]
    fn medians_lie_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut [7.0]), 7.0);
    }
}
