//! What the language model does for a request before the music is made: inventing or rewriting
//! the texts, the metadata that is missing, the audio codes. The order and the conditions are
//! those of upstream's `acestep/inference.py` and `acestep/api/job_generation_setup.py`, except
//! that what the user gave always stays.

use super::Watch;
use super::describe::{DescribeRequest, Description, Facts, Subject, UNKNOWN};
use super::plan::{PlanRequest, Planner};
use super::request::{Composed, Planning, SongRequest, StageTimes};
use crate::error::{Error, Result};
use crate::text::Metadata;
use crate::text::prompt::INSTRUMENTAL;
use std::time::Instant;

impl Planner {
    /// The request with what its planning asks for.
    ///
    /// # Errors
    /// [`Error::Cancelled`] between tokens, [`Error::TooBig`] when the model's memory does not
    /// suffice, [`Error::Request`] when the model wrote nothing of use.
    pub fn compose(
        &self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Composed> {
        let mut composer = Composer {
            planner: self,
            composed: Composed::unplanned(request),
            watch,
        };
        if let Some(planning) = &request.planning {
            let start = Instant::now();
            composer.composed.planned = true;
            composer.invent(planning)?;
            composer.rewrite(planning)?;
            times.reason_s += start.elapsed().as_secs_f64();
            composer.plan(planning, times)?;
        }
        Ok(composer.composed)
    }
}

impl Composed {
    /// A request that no language model is asked about.
    pub fn unplanned(request: &SongRequest) -> Self {
        Composed {
            request: SongRequest {
                planning: None,
                ..request.clone()
            },
            planned: false,
            notes: Vec::new(),
            events: Vec::new(),
        }
    }
}

struct Composer<'a> {
    planner: &'a Planner,
    composed: Composed,
    watch: &'a dyn Watch,
}

impl Composer<'_> {
    /// Caption, lyrics and metadata from a wish.
    fn invent(&mut self, planning: &Planning) -> Result<()> {
        let Some(wish) = &planning.wish else {
            return Ok(());
        };
        let description = self.describe(planning, Subject::Wish(wish.clone()))?;
        if description.caption.is_none() && description.lyrics.is_none() {
            return Err(Error::Request(
                "the language model described no song: leave constrained_decoding on, or say more \
                 in sample_query"
                    .into(),
            ));
        }
        let request = &mut self.composed.request;
        request.caption = description.caption.unwrap_or_else(|| wish.query.clone());
        request.lyrics = match description.lyrics {
            Some(lyrics) if !wish.instrumental => lyrics,
            _ => INSTRUMENTAL.into(),
        };
        self.learn(description.facts);
        Ok(())
    }

    /// Caption and lyrics in the model's own form.
    fn rewrite(&mut self, planning: &Planning) -> Result<()> {
        let request = &self.composed.request;
        let is_blank = request.caption.trim().is_empty() && request.lyrics == INSTRUMENTAL;
        if !planning.format || is_blank {
            return Ok(());
        }
        let texts = Subject::Texts {
            caption: request.caption.clone(),
            lyrics: request.lyrics.clone(),
        };
        let description = match self.describe(planning, texts) {
            Ok(description) => description,
            Err(Error::Request(why)) => {
                let note = format!("the texts were not rewritten: {why}");
                self.composed.notes.push(note);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let request = &mut self.composed.request;
        if let Some(caption) = description.caption {
            request.caption = caption;
        }
        if let Some(lyrics) = description.lyrics {
            request.lyrics = lyrics;
        }
        self.learn(description.facts);
        Ok(())
    }

    fn describe(&mut self, planning: &Planning, subject: Subject) -> Result<Description> {
        let request = DescribeRequest {
            subject,
            known: self.facts(planning),
            sampling: planning.sampling,
            seed: self.composed.request.seeds.first().copied().unwrap_or(0),
            constrained: planning.constrained,
            debug: planning.debug,
        };
        let mut description = self.planner.describe(&request, self.watch)?;
        self.composed.events.append(&mut description.events);
        Ok(description)
    }

    /// What is known of the song so far.
    fn facts(&self, planning: &Planning) -> Facts {
        let request = &self.composed.request;
        let language = Some(&request.language).filter(|l| planning.keep_language && *l != UNKNOWN);
        Facts {
            metas: request.metas.clone(),
            duration_s: request.duration_s,
            language: language.cloned(),
        }
    }

    /// Takes over what the request does not say. The facts hold the user's own values already.
    fn learn(&mut self, facts: Facts) {
        let request = &mut self.composed.request;
        request.metas = facts.metas;
        request.duration_s = facts.duration_s;
        if let Some(language) = facts.language {
            request.language = language;
        }
    }

    /// The metadata that is missing, and the codes.
    fn plan(&mut self, planning: &Planning, times: &mut StageTimes) -> Result<()> {
        let known = self.facts(planning);
        let request = &self.composed.request;
        let reason = planning.metadata && !known.is_complete();
        let codes = planning.codes && request.codes.is_empty();
        if !reason && !codes {
            return Ok(());
        }
        let plan = self.planner.plan(
            &PlanRequest {
                caption: request.caption.clone(),
                lyrics: request.lyrics.clone(),
                known: known.clone(),
                reason,
                write_caption: planning.caption,
                write_language: planning.language,
                negative: planning.negative.clone(),
                sampling: planning.sampling,
                seeds: request.seeds.clone(),
                codes,
                batch: planning.batch,
                constrained: planning.constrained,
                debug: planning.debug,
            },
            self.watch,
        )?;
        times.reason_s += plan.reason_s;
        times.codes_s += plan.codes_s;
        self.composed.events.extend(plan.events);
        let caption = Metadata::known(&plan.metadata.caption).map(str::to_owned);
        self.learn(known.or(Facts::legal(&plan.metadata)));
        let request = &mut self.composed.request;
        if planning.caption
            && let Some(caption) = caption
        {
            request.caption = caption;
        }
        if codes {
            request.codes = plan.codes;
        }
        Ok(())
    }
}
