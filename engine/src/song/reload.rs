//! Models that are exchanged while an engine is open.

use super::Watch;
use super::engine::Engine;
use crate::error::Result;
use crate::weights::Checkpoints;

impl Engine {
    /// Maps and checks a diffusion model anew, also one that is loaded already, from the folder
    /// as it is now. When this fails, what was loaded before stays.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn reload(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        self.tree = Checkpoints::open(&self.options.checkpoints)?;
        let at = self.dits.iter().position(|(dit, _)| dit.name == model);
        let before = at.map(|at| self.dits.remove(at));
        let loaded = self.load(model, watch);
        if loaded.is_err() {
            self.dits.extend(before);
        }
        loaded
    }

    /// Forgets a diffusion model; a later request for it loads it again.
    pub fn unload(&mut self, model: &str) {
        self.dits.retain(|(dit, _)| dit.name != model);
    }

    /// Forgets the diffusion models and what they share; what is needed loads again.
    pub fn unload_all(&mut self) {
        self.dits.clear();
        (self.text, self.vae) = (None, None);
    }

    /// Forgets the language model.
    pub fn unload_lm(&mut self) {
        self.planner = None;
    }

    /// As [`Engine::load_lm`], also when that model is loaded already, from the folder as it is
    /// now.
    ///
    /// # Errors
    /// As [`Engine::load_lm`]. The model before then stays.
    pub fn reload_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<()> {
        self.tree = Checkpoints::open(&self.options.checkpoints)?;
        let before = self.planner.take();
        let loaded = self.load_lm(name, watch);
        if loaded.is_err() {
            self.planner = before;
        }
        loaded
    }
}
