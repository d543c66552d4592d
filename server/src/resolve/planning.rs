//! What a request wants of the language model, and the audio codes it brings.

use super::checks::Checks;
use super::{Caller, hints};
use crate::fields::{RawRequest, Refusal};
use crate::languages::LANGUAGES;
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
    let is_known = LANGUAGES.contains(&said.as_str());
    let is_imposed = is_known
        && match wish {
            Some(_) if checks.caller == Caller::Http => !["en", "unknown"].contains(&said.as_str()),
            _ => said != "unknown",
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
    let need = if raw.extract_codes_only() {
        LmNeed::IfLoaded
    } else if planning.is_required()
        || raw.thinking()
        || raw.full_analysis_only()
        || raw.analysis_only()
    {
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

/// Temperature of a description of what is there, not of something new.
const UNDERSTANDING: f64 = 0.3;

/// How tokens are drawn.
fn sampling(raw: &RawRequest, checks: &mut Checks) -> Result<TokenSampling, Refusal> {
    let top_p = raw.lm_top_p();
    let temperature = match raw.lm_temperature {
        None if raw.full_analysis_only() => UNDERSTANDING,
        _ => raw.lm_temperature(),
    };
    Ok(TokenSampling {
        temperature: checks.clamp("lm_temperature", temperature)? as f32,
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
    let texts: Vec<&str> = raw
        .audio_code_string
        .iter()
        .flat_map(|t| &t.0)
        .map(|t| &**t)
        .collect();
    let filled = texts.iter().filter(|t| !t.trim().is_empty()).count();
    let mut lists = Lists::default();
    for (index, text) in texts.iter().enumerate() {
        // A list may be long, and nobody would hear it.
        if lists.codes.len() == songs {
            break;
        }
        lists.read(index + 1, text);
    }
    lists.report(checks, filled > 0)?;
    let mut lists = lists.codes;
    if lists.len() == songs && filled > songs {
        let what = format!("{filled} lists");
        let instead = format!("the first {songs}");
        let allowed = format!("one list of codes for each of the {songs} songs, or one for all");
        checks.fall_back(NAME, &what, &instead, &allowed)?;
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

const NAME: &str = "audio_code_string";

/// Lists of codes as they are read, and what was the matter with them. However many entries a
/// client sends, there is one note of each kind.
#[derive(Default)]
struct Lists {
    codes: Vec<Vec<u32>>,
    /// Codes that were too large.
    clamped: usize,
    /// Codes of the longest list that is too long.
    longest: usize,
    /// The first entry without a code, and how many there are.
    unreadable: Option<usize>,
    unreadables: usize,
    /// The first blank entry.
    blank: Option<usize>,
}

impl Lists {
    /// Reads entry `number`.
    fn read(&mut self, number: usize, text: &str) {
        let mut parsed = parse_codes(text);
        self.clamped += parsed.clamped;
        if parsed.codes.len() > MOST_CODES {
            self.longest = self.longest.max(parsed.codes.len());
            parsed.codes.truncate(MOST_CODES);
        }
        if !parsed.codes.is_empty() {
            self.codes.push(parsed.codes);
        } else if text.trim().is_empty() {
            self.blank.get_or_insert(number);
        } else {
            self.unreadable.get_or_insert(number);
            self.unreadables += 1;
        }
    }

    /// Notes or refuses what was the matter.
    fn report(&self, checks: &mut Checks, any: bool) -> Result<(), Refusal> {
        if self.clamped > 0 {
            checks.notes.push(format!(
                "{NAME}: {} codes above 63999 were taken as 63999",
                self.clamped
            ));
        }
        if self.longest > 0 {
            checks.fall_back(
                NAME,
                &format!("{} codes", self.longest),
                &format!("the first {MOST_CODES}"),
                &format!("at most {MOST_CODES} codes, which are ten minutes"),
            )?;
        }
        if let Some(number) = self.unreadable {
            let more = match self.unreadables - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            checks.fall_back(
                NAME,
                &format!("entry {number}{more} without a code"),
                "not given",
                "a text with <|audio_code_N|> in it",
            )?;
        }
        match self.blank.filter(|_| any) {
            Some(number) if checks.caller == Caller::CommandLine => Err(Refusal(format!(
                "--codes: entry {number} is blank; give a list for every song, or one for all"
            ))),
            Some(number) => {
                checks.notes.push(format!(
                    "{NAME}: entry {number} is blank: the songs take the others in turn"
                ));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
