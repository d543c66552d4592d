//! What the server needs of an engine. Tests put a fake in its place.

use engine::Result;
use engine::song::{Engine, Song, SongRequest, Watch};

/// Makes songs, one at a time, on the thread that owns it.
pub trait SongMaker {
    /// Loads a model, so that the first song does not wait for it.
    fn load(&mut self, model: &str, watch: &dyn Watch) -> Result<()>;
    /// Makes the song.
    fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song>;
}

/// Opens the engine on the thread that will own it. Called again after a job brought an engine
/// down.
pub type OpenMaker = Box<dyn FnMut() -> Result<Box<dyn SongMaker>> + Send>;

impl SongMaker for Engine {
    fn load(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        Engine::load(self, model, watch)
    }

    fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song> {
        Engine::make(self, request, watch)
    }
}
