//! What the language model does for a request before the music is made: inventing or rewriting
//! the texts, the metadata that is missing, the audio codes. The order and the conditions are
//! those of upstream's `acestep/inference.py` and `acestep/api/job_generation_setup.py`, except
//! that what the user gave always stays.

use super::Watch;
use super::describe::{DescribeRequest, Description, Facts, Subject, UNKNOWN};
use super::plan::{COMPLETION_TOKENS, PlanRequest, Planner};
use super::request::{Composed, Planning, SongRequest, StageTimes, Wish};
use crate::error::{Error, Result};
use crate::text::Metadata;
use crate::text::codes::CODES_PER_SECOND;
use crate::text::prompt::INSTRUMENTAL;
use std::time::Instant;

impl Planner {
    /// The request with what its planning asks for. What can be done without, a rewriting or
    /// missing metadata, is left out with a note when the texts are too long for it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] between tokens. For a song that is invented or whose codes are
    /// written also [`Error::TooBig`] when the model's memory does not suffice, and
    /// [`Error::Request`] when a text is too long or the model wrote nothing of use.
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
            composer.measure_codes();
            if let Some(wish) = &planning.wish {
                let invented = composer.invent(planning, wish);
                invented.map_err(|e| e.within("create_sample failed"))?;
            }
            composer.rewrite(planning)?;
            times.reason_s += start.elapsed().as_secs_f64();
            let planned = composer.plan(planning, times);
            planned.map_err(|e| e.within("LM generation failed"))?;
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
    /// The user's own codes say how long the song is when nobody else does.
    fn measure_codes(&mut self) {
        let request = &mut self.composed.request;
        let longest = request.codes.iter().map(Vec::len).max().unwrap_or(0);
        if request.duration_s.is_none() && longest > 0 {
            request.duration_s = Some(longest as f64 / CODES_PER_SECOND as f64);
        }
    }

    /// Caption, lyrics and metadata from a wish.
    fn invent(&mut self, planning: &Planning, wish: &Wish) -> Result<()> {
        let description = self.describe(planning, Subject::Wish(wish.clone()))?;
        if description.caption.is_none() && description.lyrics.is_none() {
            return Err(Error::Request(
                "the language model described no song: leave constrained_decoding on, or say more \
                 in sample_query"
                    .into(),
            ));
        }
        let request = &mut self.composed.request;
        // Where the model wrote nothing, the user's own text stays.
        match description.caption {
            Some(caption) => request.caption = caption,
            None if request.caption.trim().is_empty() => request.caption.clone_from(&wish.query),
            None => {}
        }
        match description.lyrics {
            Some(lyrics) => request.lyrics = lyrics,
            None if request.lyrics.trim().is_empty() => request.lyrics = INSTRUMENTAL.into(),
            None => {}
        }
        self.learn(description.facts, true);
        Ok(())
    }

    /// Caption and lyrics in the model's own form.
    fn rewrite(&mut self, planning: &Planning) -> Result<()> {
        let request = &self.composed.request;
        let sung = !request.lyrics.trim().is_empty() && request.lyrics != INSTRUMENTAL;
        let is_blank = request.caption.trim().is_empty() && !sung;
        if !planning.format || is_blank {
            return Ok(());
        }
        let texts = Subject::Texts {
            caption: request.caption.clone(),
            lyrics: request.lyrics.clone(),
        };
        let description = match self.describe(planning, texts) {
            Ok(description) => description,
            Err(error) => return self.go_without("the texts were not rewritten", error),
        };
        let request = &mut self.composed.request;
        if let Some(caption) = description.caption {
            request.caption = caption;
        }
        if let Some(lyrics) = description.lyrics {
            request.lyrics = lyrics;
        }
        self.learn(description.facts, planning.language);
        Ok(())
    }

    /// Notes what a request is made without, if it is the request that is the matter.
    fn go_without(&mut self, what: &str, error: Error) -> Result<()> {
        match error {
            Error::Request(_) | Error::TooBig { .. } => {
                self.composed.notes.push(format!("{what}: {error}"));
                Ok(())
            }
            error => Err(error),
        }
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
        self.composed.planned = true;
        self.composed.events.append(&mut description.events);
        if description.is_cut_off {
            self.composed.notes.push(format!(
                "the language model's lyrics were cut off after {COMPLETION_TOKENS} tokens"
            ));
        }
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
    fn learn(&mut self, facts: Facts, with_language: bool) {
        let request = &mut self.composed.request;
        request.metas = facts.metas;
        request.duration_s = facts.duration_s;
        if let Some(language) = facts.language.filter(|_| with_language) {
            request.language = language;
        }
    }

    /// The metadata that is missing, and the codes.
    fn plan(&mut self, planning: &Planning, times: &mut StageTimes) -> Result<()> {
        let known = self.facts(planning);
        let request = &self.composed.request;
        let reason = planning.metadata && !known.is_complete();
        let works_on_recording = request.works_on_recording();
        let codes = planning.codes && request.codes.is_empty() && !works_on_recording;
        if planning.codes && works_on_recording {
            let note = format!(
                "no codes were planned: {} follows the recording",
                request.task
            );
            self.composed.notes.push(note);
        }
        let request = &self.composed.request;
        if !reason && !codes {
            return Ok(());
        }
        let planned = self.planner.plan(
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
        );
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) if !codes => {
                return self.go_without("the metadata was not completed", error);
            }
            Err(error) => return Err(error),
        };
        self.composed.planned = true;
        times.reason_s += plan.reason_s;
        times.codes_s += plan.codes_s;
        self.composed.events.extend(plan.events);
        let caption = Metadata::known(&plan.metadata.caption).map(str::to_owned);
        let mut facts = known.or(Facts::legal(&plan.metadata));
        // What the codes were written for is what prompt and answer say.
        facts.duration_s = facts.duration_s.or(plan.target_s);
        self.learn(facts, planning.language);
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
