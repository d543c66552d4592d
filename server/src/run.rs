//! Starts and ends a server: its port, its threads, its signals.

use crate::app::App;
use crate::config::Config;
use crate::maker::OpenMaker;
use crate::worker::Worker;
use crate::{files, finish, http, submit};
use engine::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How often finished jobs are looked through for old ones.
const SWEEP: Duration = Duration::from_secs(300);

/// A server that runs.
pub struct Server {
    addr: SocketAddr,
    app: Arc<App>,
    runtime: Runtime,
    accept: tokio::task::JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    /// Turns true when the server is to end.
    stop: watch::Sender<bool>,
    /// What the engine thread could not do at start.
    start_failure: watch::Receiver<Option<Error>>,
}

impl Server {
    /// Opens the port, then starts the threads; the engine is opened on its own thread.
    pub fn start(config: Config, open: OpenMaker) -> Result<Self> {
        let listener = listen(&config)?;
        let failed = |e: std::io::Error| Error::Device(format!("the server cannot start: {e}"));
        let addr = listener.local_addr().map_err(failed)?;
        let (app, unfinished) = App::new(config)?;
        submit::restore(&app, unfinished);
        let app = Arc::new(app);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(app.config.workers)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        let accept = {
            let _guard = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
            runtime.spawn(http::serve(app.clone(), listener, stopped))
        };
        runtime.spawn(sweep(app.clone()));
        let (failure, start_failure) = watch::channel(None);
        let threads = start_threads(&app, open, failure).map_err(failed)?;
        Ok(Server {
            addr,
            app,
            runtime,
            accept,
            threads,
            stop,
            start_failure,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for SIGINT or SIGTERM, then ends the server. Ends it with an error when a model
    /// that was to load at start did not. `ready` is called once signals are heeded.
    pub fn run(self, ready: impl FnOnce(SocketAddr)) -> Result<()> {
        let mut failure = self.start_failure.clone();
        let error = self.runtime.block_on(async {
            let signal = match signal() {
                Ok(signal) => signal,
                Err(e) => return Some(Error::Device(format!("signals cannot be received: {e}"))),
            };
            ready(self.addr);
            tokio::select! {
                () = signal => None,
                failure = failed_start(&mut failure) => Some(failure),
            }
        });
        self.stop();
        error.map_or(Ok(()), Err)
    }

    /// Takes no more connections, lets requests in flight end, drops waiting jobs, stops the
    /// running one at its next step, and ends, after a bounded wait.
    pub fn stop(self) {
        tracing::info!("ending");
        self.app.stop();
        // The accept loop may have ended already.
        let _ = self.stop.send(true);
        if let Err(error) = self.runtime.block_on(self.accept) {
            tracing::error!("the accept loop failed: {error}");
        }
        let deadline = Instant::now() + self.app.config.shutdown_grace;
        for thread in self.threads {
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !thread.is_finished() {
                tracing::warn!("the running job did not stop in time and is cut off");
            }
        }
        self.app.jobs.flush();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

/// Opens the port.
fn listen(config: &Config) -> Result<TcpListener> {
    let place = format!("{}:{}", config.host, config.port);
    let listener = TcpListener::bind((config.host.as_str(), config.port)).map_err(|e| {
        let advice = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use; stop the other program or choose another with --port"
            }
            std::io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --port",
            _ => "choose another address with --host and --port",
        };
        Error::Device(format!("cannot listen on {place}: {advice} ({e})"))
    })?;
    listener
        .set_nonblocking(true)
        .map_err(|e| Error::Device(format!("cannot listen on {place}: {e}")))?;
    Ok(listener)
}

/// Starts the engine thread and the finishing thread.
fn start_threads(
    app: &Arc<App>,
    open: OpenMaker,
    failure: watch::Sender<Option<Error>>,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    // One song may wait to be written while the next is made; more would only fill memory.
    let (finish_tx, finish_rx) = std::sync::mpsc::sync_channel(1);
    let finisher = app.clone();
    let finish = std::thread::Builder::new()
        .name("finish".into())
        .spawn(move || finish::run(finisher, finish_rx))?;
    let app = app.clone();
    let engine = std::thread::Builder::new()
        .name("engine".into())
        .spawn(move || {
            let eager = !app.config.no_init;
            let mut worker = Worker::new(app, open, finish_tx);
            if eager && let Err(error) = worker.load_eagerly() {
                // Nobody listens only when the server is ending anyway.
                let _ = failure.send(Some(error));
                return;
            }
            worker.run();
        })?;
    Ok(vec![engine, finish])
}

/// Forgets old jobs from time to time.
async fn sweep(app: Arc<App>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        let swept = app.jobs.sweep(SystemTime::now(), app.config.retention);
        if swept > 0 {
            tracing::info!("forgot {swept} old jobs");
        }
        if let Some(age) = app.config.audio_max_age {
            let app = app.clone();
            let remove = move || files::remove_old(&app.audio_dir, SystemTime::now(), age);
            // A panic has been printed.
            let removed = tokio::task::spawn_blocking(remove).await.unwrap_or(0);
            if removed > 0 {
                tracing::info!("removed {removed} old files");
            }
        }
    }
}

/// Returns when loading at start has failed.
async fn failed_start(failure: &mut watch::Receiver<Option<Error>>) -> Error {
    if let Ok(error) = failure.wait_for(Option::is_some).await
        && let Some(error) = &*error
    {
        return error.clone();
    }
    // The engine thread cannot fail at start any more.
    std::future::pending().await
}

/// Heeds SIGINT and SIGTERM from now on; the future ends with the first of them.
fn signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
