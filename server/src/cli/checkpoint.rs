//! `acestep checkpoint`: demo, random and inspect.

use super::Outcome;
use engine::error::human_bytes;
use engine::weights::inspect::{Component, Report, inspect};
use engine::weights::{demo::demo, random};
use engine::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Flags of `checkpoint`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Write a small deterministic tree in the published layout
    Demo {
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Write full-size trees with random weights
    Random {
        /// Which model
        #[arg(long, value_name = "MODEL")]
        like: Like,
        /// Directory to make
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Seed of the weights
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// List components, parameters, dtypes, sizes and what is missing
    Inspect {
        /// Directory with the model folders, or one model folder
        dir: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Models that `random` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Like {
    /// 2B, distilled, with text encoder and VAE (6.3 GB)
    Turbo,
    /// 2B, with text encoder and VAE (6.3 GB)
    Base,
    /// 5B, distilled, with text encoder and VAE (11.5 GB)
    XlTurbo,
    /// Language model of 0.6B (1.3 GB)
    #[value(name = "lm-0.6b")]
    Lm06b,
    /// Language model of 1.7B (3.7 GB)
    #[value(name = "lm-1.7b")]
    Lm17b,
    /// Language model of 4B (8.4 GB)
    #[value(name = "lm-4b")]
    Lm4b,
    /// All of them
    All,
}

impl Like {
    fn models(self) -> Vec<random::Like> {
        match self {
            Like::Turbo => vec![random::Like::Turbo],
            Like::Base => vec![random::Like::Base],
            Like::XlTurbo => vec![random::Like::XlTurbo],
            Like::Lm06b => vec![random::Like::Lm06b],
            Like::Lm17b => vec![random::Like::Lm17b],
            Like::Lm4b => vec![random::Like::Lm4b],
            Like::All => random::Like::ALL.to_vec(),
        }
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Outcome> {
    match args.verb {
        Verb::Demo { out } => {
            demo(&out)?;
            print(&format!(
                "{} holds the demonstration models\n",
                out.display()
            ))?;
            Ok(Outcome::Done)
        }
        Verb::Random { like, out, seed } => write_random(like, &out, seed),
        Verb::Inspect { dir, json } => {
            let report = inspect(&dir)?;
            let text = if json {
                let text = serde_json::to_string_pretty(&report)
                    .map_err(|e| Error::Bug(format!("a report is not JSON: {e}")))?;
                text + "\n"
            } else {
                table(&report)
            };
            print(&text)?;
            Ok(if report.is_sound() {
                Outcome::Done
            } else {
                Outcome::Failed
            })
        }
    }
}

fn write_random(like: Like, out: &Path, seed: u64) -> Result<Outcome> {
    let bar = ProgressBar::new(0);
    let style = "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let result = random::random(&like.models(), out, seed, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    result?;
    print(&format!("{} holds random weights\n", out.display()))?;
    Ok(Outcome::Done)
}

/// Prints to stdout; a closed pipe is not worth a word.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::Output(format!("stdout cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// The report as people read it.
fn table(report: &Report) -> String {
    let mut out = format!("{}\n", report.path.display());
    for c in &report.components {
        out += &line(c);
        for fault in &c.faults {
            out += &format!("    {}\n", fault.replace('\n', "\n    "));
        }
        if !c.unused.is_empty() {
            out += &format!("    {} tensors that nothing reads\n", c.unused.len());
        }
    }
    for missing in &report.missing {
        out += &format!("  missing: {missing}\n");
    }
    out += if report.is_sound() {
        "complete\n"
    } else {
        "not complete\n"
    };
    out
}

fn line(c: &Component) -> String {
    let dtypes: Vec<&str> = c.dtypes.keys().map(String::as_str).collect();
    format!(
        "  {:<24} {:<12} {:>8.2} M parameters  {:>5} tensors  {:<8} {:>10}  {}\n",
        c.name,
        c.kind,
        c.parameters as f64 / 1e6,
        c.tensors,
        dtypes.join("+"),
        human_bytes(c.bytes),
        if c.faults.is_empty() {
            "ok"
        } else {
            "NOT USABLE"
        }
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn verbs_end_as_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("demo");
        let run = |verb| run(Args { verb });
        assert_eq!(run(Verb::Demo { out: out.clone() }).unwrap(), Outcome::Done);
        for json in [false, true] {
            let verb = Verb::Inspect {
                dir: out.clone(),
                json,
            };
            assert_eq!(run(verb).unwrap(), Outcome::Done);
        }
        std::fs::remove_dir_all(out.join("vae")).unwrap();
        let verb = Verb::Inspect {
            dir: out.clone(),
            json: false,
        };
        assert_eq!(run(verb).unwrap(), Outcome::Failed);
        let text = table(&inspect(&out).unwrap());
        assert!(
            text.contains("missing: vae") && text.ends_with("not complete\n"),
            "{text}"
        );
        assert!(
            text.contains("acestep-v15-turbo") && text.contains("BF16"),
            "{text}"
        );
    }
}
