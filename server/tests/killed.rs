//! A server that is killed: what was done, what waited, what it worked on.

#[allow(dead_code)] // Other tests use the rest.
mod binary;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use tests::client::{finished, get, items, query, release, wait};

/// The real program on the tiny tree.
struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(data: &Path) -> Self {
        let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/tiny");
        let mut child = binary::acestep(data)
            .args(["serve", "--port", "0", "--backend", "cpu", "--threads", "1"])
            .args(["--checkpoints", tree, "--data", "."])
            .env("ACESTEP_INIT_LLM", "false")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let addr = line.trim().rsplit('/').next().unwrap_or_default().parse();
        Process {
            child,
            addr: addr.unwrap_or_else(|e| panic!("{e}: {line}")),
        }
    }

    /// Ends it with SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_killed_server_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let quick = json!({
        "prompt": "x", "duration": 10, "inference_steps": 1, "batch_size": 1,
        "audio_format": "wav", "use_random_seed": false, "seed": 5,
    });
    let mut long = quick.clone();
    (
        long["duration"],
        long["inference_steps"],
        long["batch_size"],
    ) = (json!(600), json!(20), json!(8));
    let server = Process::start(dir.path());
    let done = release(server.addr, &quick);
    let before = finished(server.addr, &done);
    let file = items(&before)[0]["file"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let song = get(server.addr, &file).body;
    let cut_off = release(server.addr, &long);
    wait("the long job to run", || {
        let progress = items(&query(server.addr, &cut_off))[0]["progress"].as_f64();
        (progress > Some(0.0)).then_some(())
    });
    let waiting = release(server.addr, &quick);
    server.kill();

    // The job that was cut off runs once more.
    let server = Process::start(dir.path());
    assert_eq!(query(server.addr, &done), before);
    assert_eq!(get(server.addr, &file).body, song);
    wait("the long job to run again", || {
        let entry = query(server.addr, &cut_off);
        assert_eq!(entry["status"], 0, "{entry}");
        let progress = items(&entry)[0]["progress"].as_f64();
        (progress > Some(0.0)).then_some(())
    });
    server.kill();

    // And not a third time.
    let server = Process::start(dir.path());
    let entry = query(server.addr, &cut_off);
    let error: Value = items(&entry)[0]["error"].clone();
    assert_eq!(entry["status"], 2);
    assert_eq!(
        error,
        "the server was cut off twice while it worked on this job"
    );
    let entry = finished(server.addr, &waiting);
    let file = items(&entry)[0]["file"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        get(server.addr, &file).body == song,
        "the same seed, the same song"
    );
}
