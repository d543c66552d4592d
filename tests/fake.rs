//! A server whose engine is a fake that tests steer: it is fast, can be held, and fails on
//! demand.

use engine::song::{
    Composed, DescribeRequest, Description, Facts, Metas, Song, SongItem, SongRequest, Stage,
    StageTimes, Subject, Watch,
};
use engine::{Error, Result};
use server::config::{Config, Flags};
use server::env::Env;
use server::maker::SongMaker;
use server::run::Server;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What tests and the fake share.
#[derive(Default)]
pub struct Steering {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Songs wait here until they are let go.
    held: bool,
    /// Loading waits too.
    load_held: bool,
    /// What loading ends with.
    load_error: Option<Error>,
    lm_error: Option<Error>,
    /// Loading a language model brings the engine down.
    lm_panic: bool,
    loads: usize,
    /// Names of the language models that were to be loaded, `None` for the default.
    lm_loads: Vec<Option<String>>,
    /// Models that were loaded anew, and those that were forgotten.
    reloaded: Vec<String>,
    unloaded: Vec<String>,
    seen: Vec<SongRequest>,
    described: Vec<DescribeRequest>,
    /// What was worked on, in order.
    order: Vec<String>,
    /// Descriptions that ended because they were given up.
    given_up: usize,
}

impl Steering {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().expect("no test panics in here");
        let out = change(&mut state);
        self.changed.notify_all();
        out
    }

    /// Songs wait from now on, or go on.
    pub fn hold(&self, held: bool) {
        self.with(|s| s.held = held);
    }

    /// Loading waits from now on, or goes on.
    pub fn hold_load(&self, held: bool) {
        self.with(|s| s.load_held = held);
    }

    /// Loading fails from now on.
    pub fn fail_load(&self, error: Error) {
        self.with(|s| s.load_error = Some(error));
    }

    /// Loading a language model fails from now on.
    pub fn fail_lm(&self, error: Error) {
        self.with(|s| s.lm_error = Some(error));
    }

    /// Loading a language model panics from now on, or does not.
    pub fn panic_lm(&self, panics: bool) {
        self.with(|s| s.lm_panic = panics);
    }

    /// Loading goes well from now on.
    pub fn repair(&self) {
        self.with(|s| (s.load_error, s.lm_error) = (None, None));
    }

    /// The language models that were to be loaded, `None` for the default.
    pub fn lm_loads(&self) -> Vec<Option<String>> {
        self.with(|s| s.lm_loads.clone())
    }

    /// Models that were loaded anew, and those that were forgotten.
    pub fn exchanged(&self) -> (Vec<String>, Vec<String>) {
        self.with(|s| (s.reloaded.clone(), s.unloaded.clone()))
    }

    /// The descriptions that were asked for.
    pub fn described(&self) -> Vec<DescribeRequest> {
        self.with(|s| s.described.clone())
    }

    /// What was worked on, in order.
    pub fn order(&self) -> Vec<String> {
        self.with(|s| s.order.clone())
    }

    /// How many descriptions were given up.
    pub fn given_up(&self) -> usize {
        self.with(|s| s.given_up)
    }

    /// How often a model was loaded.
    pub fn loads(&self) -> usize {
        self.with(|s| s.loads)
    }

    /// The requests that reached the engine.
    pub fn seen(&self) -> Vec<SongRequest> {
        self.with(|s| s.seen.clone())
    }

    fn wait_while(&self, watch: &dyn Watch, is_held: impl Fn(&State) -> bool) -> Result<()> {
        let mut state = self.state.lock().expect("no test panics in here");
        while is_held(&state) {
            if watch.cancelled() {
                return Err(Error::Cancelled);
            }
            let pause = Duration::from_millis(10);
            state = self
                .changed
                .wait_timeout(state, pause)
                .expect("not poisoned")
                .0;
        }
        Ok(())
    }
}

struct FakeMaker {
    steering: Arc<Steering>,
    /// Its device is gone, and stays so.
    is_lost: bool,
}

impl SongMaker for FakeMaker {
    fn load(&mut self, _: &str, watch: &dyn Watch) -> Result<()> {
        self.steering.wait_while(watch, |s| s.load_held)?;
        self.steering.with(|s| {
            s.loads += 1;
            s.load_error.clone().map_or(Ok(()), Err)
        })
    }

    fn reload(&mut self, model: &str, watch: &dyn Watch) -> Result<()> {
        self.load(model, watch)?;
        self.steering.with(|s| s.reloaded.push(model.to_owned()));
        Ok(())
    }

    fn unload(&mut self, model: &str) {
        self.steering.with(|s| s.unloaded.push(model.to_owned()));
    }

    fn unload_all(&mut self) {
        self.steering.with(|s| s.unloaded.push("all".to_owned()));
    }

    fn unload_lm(&mut self) {
        self.steering.with(|s| s.unloaded.push("lm".to_owned()));
    }

    fn load_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String> {
        self.steering
            .with(|s| s.lm_loads.push(name.map(str::to_owned)));
        self.steering.wait_while(watch, |s| s.load_held)?;
        if self.steering.with(|s| s.lm_panic) {
            panic!("asked for by a test");
        }
        self.steering
            .with(|s| s.lm_error.clone().map_or(Ok(()), Err))?;
        Ok(name.unwrap_or("acestep-5Hz-lm-0.6B").to_owned())
    }

    fn reload_lm(&mut self, name: Option<&str>, watch: &dyn Watch) -> Result<String> {
        self.load_lm(name, watch)
    }

    /// Completes the metadata.
    fn compose(
        &mut self,
        request: &SongRequest,
        _: &mut StageTimes,
        watch: &dyn Watch,
    ) -> Result<Composed> {
        self.steering.with(|s| s.seen.push(request.clone()));
        self.steering.wait_while(watch, |s| s.held)?;
        let mut composed = Composed::unplanned(request);
        let known = Facts {
            metas: request.metas.clone(),
            duration_s: request.duration_s,
            language: None,
        };
        let facts = known.or(invented());
        composed.planned = true;
        composed.request.metas = facts.metas;
        composed.request.duration_s = facts.duration_s;
        Ok(composed)
    }

    /// The text steers: `panic`, `device` and `nothing` go wrong in their ways.
    fn codes(&mut self, request: &SongRequest, _: &dyn Watch) -> Result<Vec<u32>> {
        self.steering.with(|s| s.seen.push(request.clone()));
        Ok(vec![1, 2, 3, 4, 5])
    }

    fn describe(&mut self, request: &DescribeRequest, watch: &dyn Watch) -> Result<Description> {
        self.steering.with(|s| {
            s.order.push("description".into());
            s.described.push(request.clone());
        });
        let held = self.steering.wait_while(watch, |s| s.held);
        if held.is_err() {
            self.steering.with(|s| s.given_up += 1);
        }
        held?;
        let text = match &request.subject {
            Subject::Wish(wish) => wish.query.as_str(),
            Subject::Texts { caption, .. } => caption.as_str(),
            Subject::Codes(_) => "",
        };
        let (caption, lyrics) = match text {
            "panic" => panic!("asked for by a test"),
            "device" => return Err(Error::Device("the device is gone".into())),
            "nothing" => (None, None),
            text => (Some(format!("{text} indeed")), Some("la la la".into())),
        };
        let facts = match text {
            "nothing" => request.known.clone(),
            _ => request.known.clone().or(invented()),
        };
        Ok(Description {
            caption,
            lyrics,
            facts,
            is_cut_off: false,
            events: Vec::new(),
        })
    }

    /// The caption steers: `panic`, `device` and `lost` fail in their ways.
    fn make(&mut self, request: &SongRequest, watch: &dyn Watch) -> Result<Song> {
        self.steering.with(|s| {
            s.order.push(format!("song {}", request.caption));
            s.seen.push(request.clone());
        });
        watch.progress(Stage::Diffuse, 1, 2);
        self.steering.wait_while(watch, |s| s.held)?;
        self.is_lost |= request.caption == "lost";
        if self.is_lost {
            return Err(Error::DeviceLost("the card was lost".into()));
        }
        match request.caption.as_str() {
            "panic" => panic!("asked for by a test"),
            "device" => return Err(Error::Device("the device\nis gone".into())),
            _ => {}
        }
        watch.progress(Stage::Decode, 1, 1);
        let item = |&seed: &u64| SongItem {
            seed,
            pcm: (0..2 * 4800)
                .map(|i| (i as f32 * 0.01 + seed as f32).sin() * 0.5)
                .collect(),
            latents: vec![0.5; 250 * 64],
            gain: 1.0,
            lrc: request.lrc.then(|| format!("[00:00.00]song {seed}")),
        };
        Ok(Song {
            items: request.seeds.iter().map(item).collect(),
            sample_rate: 48_000,
            frames: 250,
            autoencoder: "fake".into(),
            composed: Composed::unplanned(request),
            times: StageTimes::default(),
        })
    }
}

/// What the fake language model writes.
fn invented() -> Facts {
    Facts {
        metas: Metas {
            bpm: Some(99),
            key_scale: Some("D minor".into()),
            time_signature: Some("3".into()),
        },
        duration_s: Some(42.0),
        language: Some("fr".into()),
    }
}

/// A running server with a fake engine and a data directory of its own.
pub struct Fake {
    /// Steers the engine.
    pub steering: Arc<Steering>,
    /// Where it listens.
    pub addr: SocketAddr,
    dir: Arc<tempfile::TempDir>,
    server: Option<Server>,
}

impl Fake {
    /// A server in an environment. It listens on a free port.
    pub fn start(variables: &[(&str, &str)]) -> Self {
        Fake::start_with(variables, Arc::default()).expect("the server starts")
    }

    /// As [`Fake::start`], with a steering that is set up already.
    pub fn start_with(variables: &[(&str, &str)], steering: Arc<Steering>) -> Result<Self> {
        let dir = tempfile::tempdir().expect("a directory for the test");
        Fake::start_in(variables, steering, Arc::new(dir))
    }

    /// As [`Fake::start_with`], in the directory of a server that has ended.
    pub fn start_in(
        variables: &[(&str, &str)],
        steering: Arc<Steering>,
        dir: Arc<tempfile::TempDir>,
    ) -> Result<Self> {
        let checkpoints = dir.path().join("checkpoints");
        for (name, like) in [("acestep-v15-base", "base"), ("acestep-v15-turbo", "turbo")] {
            let source = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("goldens/tiny/acestep-v15-{like}/config.json"));
            std::fs::create_dir_all(checkpoints.join(name)).expect("a directory");
            std::fs::copy(&source, checkpoints.join(name).join("config.json"))
                .unwrap_or_else(|e| panic!("{}: {e}", source.display()));
        }
        let flags = Flags {
            checkpoints: Some(checkpoints),
            data: Some(dir.path().join("data")),
            port: Some(0),
            ..Flags::default()
        };
        let config = Config::new(&flags, &Env::of(variables))?;
        let shared = steering.clone();
        let open = Box::new(move || {
            Ok(Box::new(FakeMaker {
                steering: shared.clone(),
                is_lost: false,
            }) as Box<dyn SongMaker>)
        });
        let server = Server::start(config, open)?;
        Ok(Fake {
            steering,
            addr: server.addr(),
            dir,
            server: Some(server),
        })
    }

    /// Makes a folder of a language model.
    pub fn add_lm(&self, name: &str) {
        let dir = self.dir.path().join("checkpoints").join(name);
        std::fs::create_dir_all(dir).expect("a directory");
    }

    /// The directory of the server's data.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The folder of results as clients see it.
    pub fn audio_dir(&self) -> PathBuf {
        let dir = self.data_dir().join("tmp/api_audio");
        dir.canonicalize().expect("made at start")
    }

    /// Where everything of this server lies; it stays until this is dropped.
    pub fn dir(&self) -> Arc<tempfile::TempDir> {
        self.dir.clone()
    }

    /// Ends the server; how long it took.
    pub fn stop(mut self) -> Duration {
        let start = std::time::Instant::now();
        if let Some(server) = self.server.take() {
            server.stop();
        }
        start.elapsed()
    }

    /// The server itself, for tests of how it ends.
    pub fn take(&mut self) -> Option<Server> {
        self.server.take()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}
