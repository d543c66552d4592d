//! What a request wants of the language model, and the audio codes it brings.

use super::checks::Checks;
use super::{Caller, hints};
use crate::fields::{RawRequest, Refusal};
use engine::sample::logits::TokenSampling;
use engine::song::{Planning, Wish};
use engine::text::codes::CODES_PER_SECOND;
use engine::text::parse_codes;

/// How much a job depends on a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LmNeed {
    /// It is asked when it is there.
    IfLoaded,
    /// A flag asked for it in so many words that the job can go without.
    Wanted,
    /// Without it the job fails.
    Required,
}

/// Codes of the longest song.
const MOST_CODES: usize = 600 * CODES_PER_SECOND;

/// What the language model is to do, and the language that is imposed on it.
pub struct Planned {
    /// For the engine.
    pub planning: Planning,
    /// A language that the wish names.
    pub language: Option<&'static str>,
    /// How much the job depends on it.
    pub need: LmNeed,
}

/// Decides what the language model does. Tasks that work on given audio get neither metadata nor
/// codes from it, only texts.
pub fn resolve(raw: &RawRequest, checks: &mut Checks) -> Result<Planned, Refusal> {
    let query = raw.sample_query();
    let wish = (raw.sample_mode() || !query.trim().is_empty()).then(|| Wish {
        instrumental: hints::is_instrumental(&query),
        query: query.trim().to_owned(),
    });
    let said = raw.vocal_language.as_deref().unwrap_or_default();
    let said = said.trim().to_lowercase();
    // English is what most clients send without being asked: a wish may name another language.
    let is_imposed = match wish {
        Some(_) if checks.caller == Caller::Http => !["", "en", "unknown"].contains(&said.as_str()),
        _ => !["", "unknown"].contains(&said.as_str()),
    };
    let hint = match is_imposed {
        true => None,
        false => wish.as_ref().and_then(|_| hints::language(&query)),
    };
    let plans = ["text2music", "lego", "complete"].contains(&raw.task_type().as_str());
    let planning = Planning {
        wish,
        format: raw.use_format(),
        metadata: plans && raw.use_cot_metas() && !raw.sample_mode(),
        caption: raw.use_cot_caption(),
        language: raw.use_cot_language(),
        keep_language: is_imposed || hint.is_some(),
        codes: plans && raw.thinking(),
        negative: raw.lm_negative_prompt(),
        sampling: sampling(raw, checks)?,
        batch: raw.allow_lm_batch(),
        constrained: raw.constrained_decoding(),
        debug: raw.constrained_decoding_debug(),
    };
    let asked = raw.use_cot_caption == Some(true) || raw.use_cot_language == Some(true);
    let need = if planning.is_required() || raw.thinking() || raw.analysis_only() {
        LmNeed::Required
    } else if asked {
        LmNeed::Wanted
    } else {
        LmNeed::IfLoaded
    };
    Ok(Planned {
        planning,
        language: hint,
        need,
    })
}

/// How tokens are drawn.
fn sampling(raw: &RawRequest, checks: &mut Checks) -> Result<TokenSampling, Refusal> {
    let top_p = raw.lm_top_p();
    Ok(TokenSampling {
        temperature: checks.clamp("lm_temperature", raw.lm_temperature())? as f32,
        // Nothing, zero and less keep every token.
        top_k: usize::try_from(raw.lm_top_k().unwrap_or(0)).unwrap_or(0),
        top_p: if (0.0..1.0).contains(&top_p) {
            top_p as f32
        } else {
            0.0
        },
        repetition_penalty: checks.clamp("lm_repetition_penalty", raw.lm_repetition_penalty())?
            as f32,
        guidance: checks.clamp("lm_cfg_scale", raw.lm_cfg_scale())? as f32,
    })
}

/// Audio codes for `songs` songs: none, one list for all, or one for each.
pub fn codes(
    raw: &RawRequest,
    songs: usize,
    checks: &mut Checks,
) -> Result<Vec<Vec<u32>>, Refusal> {
    const NAME: &str = "audio_code_string";
    let mut lists = Vec::new();
    for (index, text) in raw.audio_code_string.iter().flat_map(|t| &t.0).enumerate() {
        let mut parsed = parse_codes(text);
        if parsed.clamped > 0 {
            let notes = &mut checks.notes;
            notes.push(format!(
                "{NAME}: {} codes above 63999 were taken as 63999",
                parsed.clamped
            ));
        }
        if parsed.codes.len() > MOST_CODES {
            let what = format!("{} codes", parsed.codes.len());
            checks.fall_back(
                NAME,
                &what,
                &format!("the first {MOST_CODES}"),
                &format!("at most {MOST_CODES} codes, which are ten minutes"),
            )?;
            parsed.codes.truncate(MOST_CODES);
        }
        if !parsed.codes.is_empty() {
            lists.push(parsed.codes);
        } else if !text.trim().is_empty() {
            let what = format!("entry {} without a code", index + 1);
            checks.fall_back(
                NAME,
                &what,
                "not given",
                "a text with <|audio_code_N|> in it",
            )?;
        }
    }
    if lists.len() > songs {
        let what = format!("{} lists", lists.len());
        let instead = format!("the first {songs}");
        let allowed = format!("one list of codes for each of the {songs} songs, or one for all");
        checks.fall_back(NAME, &what, &instead, &allowed)?;
        lists.truncate(songs);
    } else if lists.len() > 1 && lists.len() < songs {
        if checks.caller == Caller::CommandLine {
            return Err(Refusal(format!(
                "--codes has {} lists for {songs} songs; give one for each song, or one for all",
                lists.len()
            )));
        }
        checks.notes.push(format!(
            "{NAME} has {} lists for {songs} songs: they were used in turn",
            lists.len()
        ));
        lists = lists.into_iter().cycle().take(songs).collect();
    }
    Ok(lists)
}
