//! Repainting: which latents are known, and the soft border between known and generated ones.

/// What is known of the song, and where it is to be generated anew.
#[derive(Debug, Clone, Copy)]
pub struct Repaint<'a> {
    /// 1 where frames are generated, 0 where they are known, `(B, T)`.
    pub mask: &'a [f32],
    /// Known latents `(B, T, C)`.
    pub clean: &'a [f32],
    /// Share of the steps after which known latents are put back.
    pub injection_ratio: f64,
    /// Width in frames of the border blended at the end; 0 for none.
    pub crossfade: usize,
}

/// Blends `x` with the known latents over `crossfade` frames on each side of the generated span,
/// per item: `(j + 1) / (k + 1)` rising before it, falling behind it. Items that are all known
/// or all generated stay as they are. x and clean `(B, T, C)`, mask `(B, T)`.
pub fn blend_border(x: &mut [f32], repaint: &Repaint, frames: usize) {
    if frames == 0 {
        return;
    }
    let batch = repaint.mask.len() / frames;
    let channels = x.len() / (batch * frames).max(1);
    for b in 0..batch {
        let mask = &repaint.mask[b * frames..(b + 1) * frames];
        let Some(weights) = soft_mask(mask, repaint.crossfade) else {
            continue;
        };
        for (t, w) in weights.iter().enumerate() {
            let at = (b * frames + t) * channels;
            for (x, clean) in x[at..at + channels].iter_mut().zip(&repaint.clean[at..]) {
                *x = w * *x + (1.0 - w) * clean;
            }
        }
    }
}

fn soft_mask(mask: &[f32], crossfade: usize) -> Option<Vec<f32>> {
    let first = mask.iter().position(|m| *m != 0.0)?;
    let end = mask.iter().rposition(|m| *m != 0.0)? + 1;
    if mask.iter().all(|m| *m != 0.0) {
        return None;
    }
    let mut soft: Vec<f32> = mask
        .iter()
        .map(|m| if *m != 0.0 { 1.0 } else { 0.0 })
        .collect();
    let before = crossfade.min(first);
    for j in 0..before {
        soft[first - before + j] = (j + 1) as f32 / (before + 1) as f32;
    }
    let behind = crossfade.min(mask.len() - end);
    for j in 0..behind {
        soft[end + j] = 1.0 - (j + 1) as f32 / (behind + 1) as f32;
    }
    Some(soft)
}
