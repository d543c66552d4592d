//! What the server needs of an engine. Tests put a fake in its place.

use engine::Result;
use engine::song::{
    Composed, DescribeRequest, Description, Engine, Song, SongRequest, StageTimes, Watch,
};

/// Makes songs, one at a time, on the thread that owns it.
pub trait SongMaker {
    /// Loads a model, so that the first song does not wait for it.
    fn load(&mut self, model: &str, watch: &dyn Watch) -> Result<()>;
    /// Loads a model anew, also one that is loaded already; when it fails, that one stays.
    fn reload(&mut self, model: &str, watch: &dyn Watch) -> Result<()>;
    /// Forgets a model.
    fn unload(&mut self, model: &str);
    /// Forgets the diffusion models and what they share.
    fn unload_all(&mut self);
    /// Makes the song.
    fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song>;
    /// What the language model adds to a request.
    fn compose(
        &mut self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Composed>;
    /// Loads a language model, without a name the default; returns its name.
    fn load_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String>;
    /// As `load_lm`, also when it is loaded already; when it fails, the one before stays.
    fn reload_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String>;
    /// Forgets the language model.
    fn unload_lm(&mut self);
    /// Audio codes of the request's source, or those that it brings.
    fn codes(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Vec<u32>>;
    /// Describes a song in words. A language model must be loaded.
    fn describe(&mut self, request: &DescribeRequest, watch: &dyn Watch) -> Result<Description>;
}

/// Opens the engine on the thread that will own it. Called again after a job brought an engine
/// down.
pub type OpenMaker = Box<dyn FnMut() -> Result<Box<dyn SongMaker>> + Send>;

impl SongMaker for Engine {
    fn load(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        Engine::load(self, model, watch)
    }

    fn reload(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        Engine::reload(self, model, watch)
    }

    fn unload(&mut self, model: &str) {
        Engine::unload(self, model);
    }

    fn unload_all(&mut self) {
        Engine::unload_all(self);
    }

    fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song> {
        Engine::make(self, request, watch)
    }

    fn compose(
        &mut self,
        request: &SongRequest,
        times: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Composed> {
        Engine::compose(self, request, times, watch)
    }

    fn load_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String> {
        Engine::load_lm(self, name, watch)?;
        Ok(self.lm().unwrap_or_default().to_owned())
    }

    fn reload_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String> {
        Engine::reload_lm(self, name, watch)?;
        Ok(self.lm().unwrap_or_default().to_owned())
    }

    fn unload_lm(&mut self) {
        Engine::unload_lm(self);
    }

    fn codes(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Vec<u32>> {
        Engine::codes_of(self, request, watch)
    }

    fn describe(&mut self, request: &DescribeRequest, watch: &dyn Watch) -> Result<Description> {
        Engine::describe(self, request, watch)
    }
}
