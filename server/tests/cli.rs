//! The binary from outside: exit statuses, refusals, a song, a server that ends on a signal.

mod binary;

use binary::{acestep, run, stderr, with_demo};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn every_subcommand_has_help() {
    let dir = tempfile::tempdir().expect("a directory");
    for command in [
        "serve",
        "generate",
        "format",
        "sample",
        "understand",
        "verify",
        "checkpoint",
        "bench",
    ] {
        let output = run(dir.path(), &[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: acestep"));
    }
    assert_eq!(run(dir.path(), &["--version"]).status.code(), Some(0));
    assert_eq!(run(dir.path(), &[]).status.code(), Some(2));
    assert_eq!(run(dir.path(), &["dance"]).status.code(), Some(2));
}

/// Arguments of `generate`, and what the refusal must name.
const WRONG: &[(&[&str], &str)] = &[
    (&["--prompt", "x", "--steps", "0"], "--steps"),
    (&["--prompt", "x", "--steps", "21"], "--steps"),
    (&["--prompt", "x", "--steps", "many"], "--steps"),
    (
        &[
            "--prompt",
            "x",
            "--model",
            "acestep-v15-base",
            "--steps",
            "201",
        ],
        "--steps",
    ),
    (&["--prompt", "x", "--duration", "9"], "--duration"),
    (&["--prompt", "x", "--duration", "-5"], "--duration"),
    (&["--prompt", "x", "--duration", "nan"], "--duration"),
    (&["--prompt", "x", "--duration", "601"], "--duration"),
    (&["--prompt", "x", "--batch-size", "9"], "--batch-size"),
    (&["--prompt", "x", "--batch-size", "0"], "--batch-size"),
    (&["--prompt", "x", "--shift", "0.5"], "--shift"),
    (&["--prompt", "x", "--seed", "-1"], "--seed"),
    (
        &["--prompt", "x", "--infer-method", "magic"],
        "--infer-method",
    ),
    (&["--prompt", "x", "--timesteps", "0.1,0.9"], "--timesteps"),
    (&["--prompt", "x", "--bpm", "5"], "--bpm"),
    (
        &["--prompt", "x", "--time-signature", "5/4"],
        "--time-signature",
    ),
    (&["--prompt", "x", "--language", "klingon"], "--language"),
    (&["--prompt", "x", "--model", "nobody"], "nobody"),
    (
        &[
            "--prompt",
            "x",
            "--model",
            "acestep-v15-base",
            "--guidance-scale",
            "31",
        ],
        "--guidance",
    ),
    (&["--prompt", "x", "--format", "ogg"], "--format"),
    (&["--prompt", "x", "--out", "song.doc"], "--format"),
    (&["--prompt", "x", "--out", "nowhere/song.wav"], "nowhere"),
    (
        &["--prompt", "x", "--out", "folder", "--format", "wav"],
        "folder",
    ),
    (&["--prompt", "x", "--backend", "abacus"], "abacus"),
    (&["--prompt", "x", "--dtype", "f16"], "--dtype"),
    (&["--prompt", "x", "--threads", "0"], "--threads"),
    (&["--prompt", "x", "--lyrics-file", "none.txt"], "none.txt"),
    (
        &["--prompt", "x", "--lyrics", "a", "--lyrics-file", "b"],
        "--lyrics-file",
    ),
    (
        &["--prompt", "x", "--checkpoints", "nowhere"],
        "checkpoint demo",
    ),
    (&["--prompt", "x", "--unknown"], "--unknown"),
    (&[], "--prompt"),
];

#[test]
fn wrong_input_ends_with_2_and_a_sentence() {
    let (dir, _) = with_demo();
    std::fs::create_dir(dir.path().join("folder")).expect("made");
    for (args, named) in WRONG {
        let output = run(dir.path(), &[&["generate"], *args].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(named), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
    // Nothing was written on the way.
    let names: Vec<_> = std::fs::read_dir(dir.path())
        .expect("a folder")
        .flatten()
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let (dir, tree) = with_demo();
    let weights = tree.join("acestep-v15-turbo/model.safetensors");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&weights)
        .expect("opened");
    file.set_len(1000).expect("cut off");
    let output = run(
        dir.path(),
        &["generate", "--prompt", "x", "--duration", "10"],
    );
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("model.safetensors"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_demonstration_song() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = [
        "generate",
        "--demo",
        "--prompt",
        "x",
        "--duration",
        "10",
        "--steps",
        "2",
    ];
    let more = [
        "--seed",
        "1,2",
        "--batch-size",
        "2",
        "--json",
        "--out",
        "song.wav",
    ];
    let output = run(dir.path(), &[&args[..], &more].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!(report["items"][1]["seed"], 2);
    assert_eq!(report["items"][1]["seconds"], 10.0);
    assert!(report["times"]["decode_s"].is_f64());
    let read = |name: &str| std::fs::read(dir.path().join(name)).expect("a song");
    let samples = u32::to_le_bytes(480_000 * 4);
    assert_eq!(read("song-1.wav")[40..44], samples);
    let single = ["--seed", "2", "--out", "single.wav"];
    assert!(
        run(dir.path(), &[&args[..], &single].concat())
            .status
            .success()
    );
    assert!(
        read("song-2.wav") == read("single.wav"),
        "an item is the song of its seed"
    );
}

/// A server process that is ended when a test fails.
struct Served {
    child: Child,
    addr: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path, variables: &[(&str, &str)]) -> Served {
    let mut command = acestep(dir);
    serve_with(
        command
            .args(["serve", "--port", "0"])
            .envs(variables.iter().copied()),
    )
}

fn serve_with(command: &mut Command) -> Served {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let addr = line
        .trim()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    Served { child, addr }
}

fn get(addr: &str, path: &str) -> String {
    exchange(addr, "GET", path, "")
}

fn post(addr: &str, path: &str, json: &str) -> String {
    exchange(addr, "POST", path, json)
}

fn exchange(addr: &str, method: &str, path: &str, json: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn a_server_answers_at_once_and_ends_on_signals() {
    let (dir, _) = with_demo();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let start = Instant::now();
        let mut served = serve(dir.path(), &[("ACESTEP_NO_INIT", "false")]);
        assert!(get(&served.addr, "/health").contains("\"status\":\"ok\""));
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let pid = libc::pid_t::try_from(served.child.id()).expect("a process");
        // SAFETY: kill takes plain numbers, and the process is our own child, not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let status = served.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_dot_env_file_is_read_and_does_not_override() {
    let (dir, _) = with_demo();
    std::fs::write(dir.path().join(".env"), "ACESTEP_API_KEY=from-file\n").expect("written");
    let served = serve(dir.path(), &[]);
    assert!(get(&served.addr, "/v1/stats").starts_with("HTTP/1.1 401"));
    drop(served);
    let served = serve(dir.path(), &[("ACESTEP_API_KEY", "")]);
    assert!(get(&served.addr, "/v1/stats").starts_with("HTTP/1.1 200"));
}

#[test]
fn servers_that_cannot_start_say_why() {
    let (dir, tree) = with_demo();
    let served = serve(dir.path(), &[]);
    let port = served.addr.rsplit(':').next().unwrap_or_default();
    let taken = run(dir.path(), &["serve", "--port", port]);
    assert_eq!(taken.status.code(), Some(1));
    assert!(stderr(&taken).contains("in use"), "{}", stderr(&taken));
    let shared = run(dir.path(), &["serve", "--port", "0"]);
    assert_eq!(shared.status.code(), Some(2));
    let why = stderr(&shared);
    assert!(why.contains("another server uses them"), "{why}");
    drop(served);

    std::fs::write(dir.path().join("file"), "in the way").expect("written");
    let blocked = run(dir.path(), &["serve", "--port", "0", "--data", "file/data"]);
    assert_eq!(blocked.status.code(), Some(2));
    assert!(stderr(&blocked).contains("--data"), "{}", stderr(&blocked));

    let wrong = acestep(dir.path())
        .args(["serve", "--port", "0"])
        .env("ACESTEP_QUEUE_MAXSIZE", "lots")
        .output()
        .expect("the program starts");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("ACESTEP_QUEUE_MAXSIZE"));

    // Loading at start that fails ends the process.
    std::fs::remove_dir_all(tree.join("vae")).expect("removed");
    let eager = acestep(dir.path())
        .args(["serve", "--port", "0", "--no-init=false"])
        .output()
        .expect("the program starts");
    assert_eq!(eager.status.code(), Some(2));
    assert!(stderr(&eager).contains("vae"), "{}", stderr(&eager));
}

/// Lets the program write files of at most 64 KiB: to it, the disk is full.
fn with_full_disk(command: &mut Command) -> &mut Command {
    let limit = || {
        let size = libc::rlimit {
            rlim_cur: 64 << 10,
            rlim_max: 64 << 10,
        };
        // SAFETY: signal and setrlimit are async-signal-safe, so they may run between fork and
        // exec; `size` outlives the call. The signal would end the program instead of failing
        // the write.
        let set = unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &size)
        };
        if set == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: the closure calls nothing but the two functions above, and allocates nothing.
    unsafe { command.pre_exec(limit) }
}

#[test]
fn a_full_disk_costs_the_song_and_not_the_server() {
    let (dir, _) = with_demo();
    let mut command = acestep(dir.path());
    command.args([
        "generate",
        "--prompt",
        "x",
        "--duration",
        "10",
        "--steps",
        "1",
    ]);
    let output = with_full_disk(&mut command)
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("cannot write song.wav"),
        "{}",
        stderr(&output)
    );
    assert!(!dir.path().join("song.wav").exists());

    let mut command = acestep(dir.path());
    let served = serve_with(with_full_disk(command.args(["serve", "--port", "0"])));
    let body = r#"{"duration": 10, "inference_steps": 1, "batch_size": 1}"#;
    let answer = post(&served.addr, "/release_task", body);
    let id = answer
        .split("\"task_id\":\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let body = format!("{{\"task_id_list\": [{:?}]}}", id.expect("an identifier"));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = post(&served.addr, "/query_result", &body);
        if answer.contains("cannot write") {
            break;
        }
        assert!(
            Instant::now() < deadline && !answer.contains("succeeded"),
            "{answer}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(get(&served.addr, "/health").starts_with("HTTP/1.1 200"));
    let results = dir.path().join(".cache/acestep/tmp/api_audio");
    assert_eq!(std::fs::read_dir(results).expect("a folder").count(), 0);
}
