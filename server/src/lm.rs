//! The language model of a server: when it is loaded, which one, and what is remembered of
//! failures.

use crate::app::App;
use crate::maker::SongMaker;
use engine::song::Watch;
use engine::weights::Checkpoints;
use engine::weights::tree::DEFAULT_LM;
use engine::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;

/// Whether the language model loads with the other models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitLlm {
    /// When its files are there and it fits.
    Auto,
    /// Yes.
    Always,
    /// No, nor later when a request asks for it.
    Never,
}

impl InitLlm {
    /// `auto` or nothing, a word for yes, or anything else for no.
    pub fn parse(text: Option<&str>, switch: Option<bool>) -> Self {
        match (text, switch) {
            (None, _) => InitLlm::Auto,
            (Some(text), _) if text.eq_ignore_ascii_case("auto") => InitLlm::Auto,
            (_, Some(true)) => InitLlm::Always,
            _ => InitLlm::Never,
        }
    }
}

/// What the HTTP side sees of the language model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LmState {
    /// The name that was configured.
    pub configured: Option<String>,
    /// Name of the one that is loaded.
    pub loaded: Option<String>,
    /// Whether it must not be loaded on request.
    pub blocked: bool,
}

impl LmState {
    /// The name in results, also where it did not run.
    pub fn shown(&self) -> String {
        let names = [&self.configured, &self.loaded];
        let name = names.into_iter().flatten().next();
        name.map_or(DEFAULT_LM, String::as_str).to_owned()
    }
}

/// Why there is no language model.
#[derive(Debug, Clone, PartialEq)]
pub enum NoLm {
    /// It must not be loaded.
    Blocked,
    /// It could not be loaded, now or before.
    Failed(Error),
}

impl fmt::Display for NoLm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoLm::Blocked => {
                f.write_str("LLM not initialized. Set ACESTEP_INIT_LLM=true in .env to enable.")
            }
            NoLm::Failed(error) => error.fmt(f),
        }
    }
}

/// Loads language models on the engine thread and remembers which could not be loaded: they are
/// not tried again until models are initialised anew.
#[derive(Debug, Default)]
pub struct LmLoader {
    /// By name; the name of the default is empty.
    failures: BTreeMap<String, Error>,
}

impl LmLoader {
    /// Loads the language model with the other models, as the server was told. Failures are
    /// logged, and the server goes on.
    pub fn load_at_start(&mut self, app: &App, maker: &mut dyn SongMaker, watch: &dyn Watch) {
        let has_any = || {
            let tree = Checkpoints::open(&app.config.checkpoints);
            tree.is_ok_and(|tree| !tree.lms().is_empty())
        };
        let wanted = match app.config.init_llm {
            InitLlm::Always => true,
            InitLlm::Auto => has_any(),
            InitLlm::Never => false,
        };
        if wanted && let Err(why) = self.ensure(app, maker, None, watch) {
            tracing::error!("5Hz LM init failed: {why}; the server goes on without it");
        }
    }

    /// Sees to it that a language model is loaded: the one there is, else the configured one,
    /// else the one that was asked for, else the default.
    pub fn ensure(
        &mut self,
        app: &App,
        maker: &mut dyn SongMaker,
        asked: Option<&str>,
        watch: &dyn Watch,
    ) -> std::result::Result<(), NoLm> {
        let state = app.lm();
        if state.loaded.is_some() {
            return Ok(());
        }
        if state.blocked {
            return Err(NoLm::Blocked);
        }
        let name = asked.or(state.configured.as_deref());
        let key = name.unwrap_or_default();
        if let Some(error) = self.failures.get(key) {
            return Err(NoLm::Failed(error.clone()));
        }
        let loaded = maker.load_lm(name, watch);
        if let Err(error) = &loaded {
            // That a client's name means nothing is soon found out again, and there is no end of
            // such names.
            let is_typo = asked.is_some() && matches!(error, Error::Missing(_));
            // A device that was lost says nothing of the model.
            let is_passing = matches!(error, Error::Cancelled | Error::DeviceLost(_));
            if !is_passing && !is_typo {
                self.failures.insert(key.to_owned(), error.clone());
            }
        }
        note_loaded(app, loaded).map_err(NoLm::Failed)
    }

    /// What could not be loaded may be tried again.
    pub fn forget_failures(&mut self) {
        self.failures.clear();
    }

    /// Loads a language model anew, makes it the configured one, forgets failures and lets
    /// requests load it from now on.
    pub fn init(
        &mut self,
        app: &App,
        maker: &mut dyn SongMaker,
        name: Option<String>,
        watch: &dyn Watch,
    ) -> Result<()> {
        self.forget_failures();
        let name = name.or_else(|| app.lm().configured);
        note_loaded(app, maker.reload_lm(name.as_deref(), watch))?;
        app.change_lm(|state| {
            state.configured = state.loaded.clone();
            state.blocked = false;
        });
        Ok(())
    }
}

fn note_loaded(app: &App, loaded: Result<String>) -> Result<()> {
    let name = loaded?;
    tracing::info!("loaded {name}");
    app.change_lm(|state| state.loaded = Some(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_when_it_loads() {
        for (text, expected) in [
            (None, InitLlm::Auto),
            (Some("AUTO"), InitLlm::Auto),
            (Some("1"), InitLlm::Always),
            (Some("False"), InitLlm::Never),
            (Some("banana"), InitLlm::Never),
        ] {
            let switch = text.map(|t| t == "1");
            assert_eq!(InitLlm::parse(text, switch), expected, "{text:?}");
        }
    }

    #[test]
    fn the_configured_name_is_shown_first() {
        let mut state = LmState::default();
        assert_eq!(state.shown(), DEFAULT_LM);
        state.loaded = Some("b".into());
        assert_eq!(state.shown(), "b");
        state.configured = Some("a".into());
        assert_eq!(state.shown(), "a");
    }
}
