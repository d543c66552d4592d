//! What a server is told: flags over environment over defaults, as a pure function.
//!
//! Names and defaults of the variables are upstream's (`docs/en/API.md`).

use crate::auth::ApiKey;
use crate::env::Env;
use crate::lm::InitLlm;
use crate::slots::Slots;
use engine::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Form of the answer of `GET /v1/models`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelsFormat {
    /// In the envelope, as documented.
    Envelope,
    /// As OpenRouter lists models.
    OpenRouter,
}

/// Flags that beat the environment; `None` is "not given".
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--checkpoints`
    pub checkpoints: Option<PathBuf>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<u16>,
    /// `--api-key`
    pub api_key: Option<String>,
    /// `--no-init`
    pub no_init: Option<bool>,
    /// `--init-llm`
    pub init_llm: bool,
    /// `--lm-model-path`
    pub lm_model: Option<String>,
}

/// A server's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Key that clients must show.
    pub api_key: Option<ApiKey>,
    /// Directory with the model folders.
    pub checkpoints: PathBuf,
    /// Names of the models at start; the others load with the primary one.
    pub models: Slots,
    /// Whether the language model loads with them.
    pub init_llm: InitLlm,
    /// Name of the language model, if one was said.
    pub lm_model: Option<String>,
    /// Where temporary files and results go.
    pub tmp_dir: PathBuf,
    /// Jobs that may wait.
    pub queue_maxsize: usize,
    /// Seconds a job is taken to need before the first one ended.
    pub avg_job_seconds: f64,
    /// Number of jobs the average runs over.
    pub avg_window: usize,
    /// Models load with the first job instead of at start.
    pub no_init: bool,
    /// Form of the model list.
    pub models_format: ModelsFormat,
    /// Threads that answer HTTP.
    pub workers: usize,
    /// Folders that source paths may lead into, beside the temporary ones.
    pub allowed_audio_dirs: Vec<PathBuf>,
    /// Origins that browsers may call from, beside this machine.
    pub cors_origins: Vec<String>,
    /// How long finished jobs are kept.
    pub retention: Duration,
    /// How long the files of songs are kept; for ever without a limit.
    pub audio_max_age: Option<Duration>,
    /// How long a chat waits for its song.
    pub generation_timeout: Duration,
    /// How long a running job may hold up the end of the process.
    pub shutdown_grace: Duration,
}

/// What counts of jobs, threads and the like must be.
const COUNT: &str = "a whole number of at least 0";

impl Config {
    /// Decides every setting.
    pub fn new(flags: &Flags, env: &Env) -> Result<Self> {
        let (models, parent) = models(env)?;
        let checkpoints = flags
            .checkpoints
            .clone()
            .or_else(|| env.text("ACESTEP_CHECKPOINTS_DIR").map(PathBuf::from))
            .or(parent)
            .unwrap_or_else(|| "checkpoints".into());
        let tmp_dir = tmp_dir(flags, env);
        let key = flags.api_key.as_deref().or(env.text("ACESTEP_API_KEY"));
        let port = flags
            .port
            .map_or_else(|| env.parsed("ACESTEP_API_PORT", "a port"), |p| Ok(Some(p)))?;
        let avg_job_seconds = env
            .parsed("ACESTEP_AVG_JOB_SECONDS", "a number of seconds")?
            .unwrap_or(5.0);
        if !(0.0..1e9).contains(&avg_job_seconds) {
            return Err(Error::Request(format!(
                "ACESTEP_AVG_JOB_SECONDS must be a number of seconds, got {avg_job_seconds}"
            )));
        }
        let generation_timeout = env
            .parsed::<u64>("ACESTEP_GENERATION_TIMEOUT", "a whole number of seconds")?
            .unwrap_or(600);
        check_without_effect(env)?;
        Ok(Config {
            host: flags
                .host
                .clone()
                .or_else(|| env.text("ACESTEP_API_HOST").map(str::to_owned))
                .unwrap_or_else(|| "127.0.0.1".into()),
            port: port.unwrap_or(8001),
            api_key: key.and_then(ApiKey::new),
            checkpoints,
            models,
            lm_model: flags
                .lm_model
                .as_deref()
                .or(env.text("ACESTEP_LM_MODEL_PATH"))
                .and_then(last_component),
            init_llm: match flags.init_llm {
                true => InitLlm::Always,
                false => {
                    InitLlm::parse(env.text("ACESTEP_INIT_LLM"), env.switch("ACESTEP_INIT_LLM"))
                }
            },
            tmp_dir,
            queue_maxsize: env.parsed("ACESTEP_QUEUE_MAXSIZE", COUNT)?.unwrap_or(200),
            avg_job_seconds,
            avg_window: env
                .parsed("ACESTEP_AVG_WINDOW", COUNT)?
                .unwrap_or(50)
                .max(1),
            no_init: flags
                .no_init
                .or(env.switch("ACESTEP_NO_INIT"))
                .unwrap_or(true),
            models_format: models_format(env)?,
            workers: env
                .parsed("ACESTEP_API_WORKERS", COUNT)?
                .unwrap_or(1)
                .clamp(1, 64),
            allowed_audio_dirs: env
                .list("ACESTEP_ALLOWED_AUDIO_DIRS")
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            cors_origins: env.list("ACESTEP_CORS_ORIGINS"),
            retention: Duration::from_secs(24 * 3600),
            audio_max_age: audio_max_age(env)?,
            // Beyond a year is for ever.
            generation_timeout: Duration::from_secs(generation_timeout.min(365 * 24 * 3600)),
            shutdown_grace: Duration::from_secs(10),
        })
    }

    /// Where result files go.
    pub fn audio_dir(&self) -> PathBuf {
        self.tmp_dir.join("api_audio")
    }
}

/// Variables that are accepted and have no effect, read so that a typing error is found at start:
/// one song computes at a time, weights stay where they are, and there is nothing to compile.
fn check_without_effect(env: &Env) -> Result<()> {
    env.parsed::<usize>("ACESTEP_QUEUE_WORKERS", COUNT)?;
    env.parsed::<u16>("TENSORBOARD_PORT", "a port")?;
    for name in [
        "ACESTEP_USE_FLASH_ATTENTION",
        "ACESTEP_OFFLOAD_TO_CPU",
        "ACESTEP_OFFLOAD_DIT_TO_CPU",
        "ACESTEP_LM_OFFLOAD_TO_CPU",
        "ACESTEP_COMPILE_MODEL",
    ] {
        known_switch(env, name)?;
    }
    known_choice(
        env,
        "ACESTEP_DOWNLOAD_SOURCE",
        &["huggingface", "modelscope", "auto"],
    )?;
    known_choice(env, "ACESTEP_LM_BACKEND", &["vllm", "pt", "mlx"])
}

/// Refuses a text that is neither on nor off where a switch has no effect, so that nobody takes
/// a typing error for the reason.
fn known_switch(env: &Env, name: &str) -> Result<()> {
    let Some(text) = env.text(name) else {
        return Ok(());
    };
    let off = ["0", "false", "no", "n", "off"];
    if env.switch(name) == Some(true) || off.contains(&text.to_lowercase().as_str()) {
        return Ok(());
    }
    Err(Error::Request(format!(
        "{name} must be true or false, got \"{text}\"; correct it or unset it"
    )))
}

/// As [`known_switch`], of a variable that has one of a few texts.
fn known_choice(env: &Env, name: &str, choices: &[&str]) -> Result<()> {
    match env.text(name) {
        Some(other) if !choices.contains(&other.to_lowercase().as_str()) => {
            Err(Error::Request(format!(
                "{name} must be one of {}, got \"{other}\"; it has no effect, so unset it",
                choices.join(", ")
            )))
        }
        _ => Ok(()),
    }
}

/// Hours after which the files of songs are removed.
fn audio_max_age(env: &Env) -> Result<Option<Duration>> {
    const NAME: &str = "ACESTEP_AUDIO_MAX_AGE_HOURS";
    match env.parsed::<f64>(NAME, "a number of hours")? {
        None => Ok(None),
        // More than a century is for ever.
        Some(hours) if hours > 1e6 => Ok(None),
        Some(hours) if hours > 0.0 => Ok(Some(Duration::from_secs_f64(hours * 3600.0))),
        Some(hours) => Err(Error::Request(format!(
            "{NAME} must be a number of hours above 0, got {hours}; unset it to keep every file"
        ))),
    }
}

/// The flag beats both variables; of these the narrower one counts.
fn tmp_dir(flags: &Flags, env: &Env) -> PathBuf {
    let within = |data: &Path| data.join("tmp");
    match (
        &flags.data,
        env.text("ACESTEP_TMPDIR"),
        env.text("ACESTEP_DATA_DIR"),
    ) {
        (Some(data), _, _) => within(data),
        (None, Some(dir), _) => dir.into(),
        (None, None, Some(data)) => within(data.as_ref()),
        (None, None, None) => ".cache/acestep/tmp".into(),
    }
}

fn models_format(env: &Env) -> Result<ModelsFormat> {
    match env.text("ACESTEP_MODELS_FORMAT") {
        None | Some("envelope") => Ok(ModelsFormat::Envelope),
        Some("openrouter") => Ok(ModelsFormat::OpenRouter),
        Some(other) => Err(Error::Request(format!(
            "ACESTEP_MODELS_FORMAT must be envelope or openrouter, got \"{other}\""
        ))),
    }
}

/// Names of the models; with the folder that a path of the primary model names.
fn models(env: &Env) -> Result<(Slots, Option<PathBuf>)> {
    let name = |variable: &str, text: &str| {
        last_component(text).ok_or_else(|| {
            Error::Request(format!(
                "{variable} must name a model folder, got \"{text}\""
            ))
        })
    };
    let other = |variable: &str| {
        let text = env.text(variable);
        text.map(|text| name(variable, text)).transpose()
    };
    const PRIMARY: &str = "ACESTEP_CONFIG_PATH";
    let primary = env.text(PRIMARY).unwrap_or("acestep-v15-turbo");
    let parent = Path::new(primary)
        .parent()
        .filter(|p| !p.as_os_str().is_empty());
    let slots = Slots::new(
        name(PRIMARY, primary)?,
        other("ACESTEP_CONFIG_PATH2")?,
        other("ACESTEP_CONFIG_PATH3")?,
    );
    Ok((slots, parent.map(Path::to_path_buf)))
}

fn last_component(path: &str) -> Option<String> {
    Path::new(path).file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Config {
        Config::new(&Flags::default(), &Env::of(pairs)).unwrap()
    }

    #[test]
    fn defaults() {
        let c = with(&[]);
        assert_eq!((c.host.as_str(), c.port), ("127.0.0.1", 8001));
        assert!(c.api_key.is_none());
        assert_eq!(c.checkpoints, Path::new("checkpoints"));
        assert_eq!(c.models.names(), ["acestep-v15-turbo"]);
        assert_eq!(c.audio_dir(), Path::new(".cache/acestep/tmp/api_audio"));
        assert_eq!(
            (c.queue_maxsize, c.avg_job_seconds, c.avg_window),
            (200, 5.0, 50)
        );
        assert!(c.no_init);
        assert_eq!(c.models_format, ModelsFormat::Envelope);
        assert_eq!(c.workers, 1);
        assert_eq!((c.lm_model, c.init_llm), (None, InitLlm::Auto));
    }

    #[test]
    fn variables() {
        let c = with(&[
            ("ACESTEP_API_HOST", "0.0.0.0"),
            ("ACESTEP_API_PORT", "9000"),
            ("ACESTEP_API_KEY", "secret"),
            ("ACESTEP_CONFIG_PATH", "/models/acestep-v15-base/"),
            ("ACESTEP_CONFIG_PATH2", "acestep-v15-turbo"),
            ("ACESTEP_CONFIG_PATH3", "acestep-v15-base"),
            ("ACESTEP_QUEUE_MAXSIZE", "3"),
            ("ACESTEP_AVG_JOB_SECONDS", "2.5"),
            ("ACESTEP_NO_INIT", "false"),
            ("ACESTEP_MODELS_FORMAT", "openrouter"),
            ("ACESTEP_DATA_DIR", "/data"),
            ("ACESTEP_LM_MODEL_PATH", "x/acestep-5Hz-lm-4B"),
            ("ACESTEP_LM_BACKEND", "mlx"),
            ("ACESTEP_LM_OFFLOAD_TO_CPU", "true"),
            ("ACESTEP_INIT_LLM", "false"),
        ]);
        assert_eq!((c.host.as_str(), c.port), ("0.0.0.0", 9000));
        assert!(c.api_key.is_some());
        assert_eq!(c.models.names(), ["acestep-v15-base", "acestep-v15-turbo"]);
        assert_eq!(c.models.primary(), "acestep-v15-base");
        assert_eq!(c.init_llm, InitLlm::Never);
        assert_eq!(c.checkpoints, Path::new("/models"));
        assert_eq!((c.queue_maxsize, c.avg_job_seconds), (3, 2.5));
        assert!(!c.no_init);
        assert_eq!(c.models_format, ModelsFormat::OpenRouter);
        assert_eq!(c.tmp_dir, Path::new("/data/tmp"));
        assert_eq!(c.lm_model.as_deref(), Some("acestep-5Hz-lm-4B"));
    }

    #[test]
    fn flags_beat_variables() {
        let flags = Flags {
            checkpoints: Some("/c".into()),
            data: Some("/d".into()),
            host: Some("::1".into()),
            port: Some(0),
            api_key: Some("  ".into()),
            no_init: Some(true),
            init_llm: true,
            lm_model: Some("acestep-5Hz-lm-1.7B".into()),
        };
        let env = Env::of(&[
            ("ACESTEP_CHECKPOINTS_DIR", "/x"),
            ("ACESTEP_DATA_DIR", "/x"),
            ("ACESTEP_TMPDIR", "/y"),
            ("ACESTEP_API_HOST", "x"),
            ("ACESTEP_API_PORT", "not a number"),
            ("ACESTEP_API_KEY", "x"),
            ("ACESTEP_NO_INIT", "0"),
            ("ACESTEP_INIT_LLM", "0"),
        ]);
        let c = Config::new(&flags, &env).unwrap();
        assert_eq!(
            (c.checkpoints.as_path(), c.tmp_dir.as_path()),
            (Path::new("/c"), Path::new("/d/tmp"))
        );
        assert_eq!((c.host.as_str(), c.port, c.no_init), ("::1", 0, true));
        assert_eq!(c.lm_model.as_deref(), Some("acestep-5Hz-lm-1.7B"));
        assert_eq!(c.init_llm, InitLlm::Always);
        assert!(c.api_key.is_none(), "a blank key switches the check off");
    }

    #[test]
    fn ages_of_files() {
        assert_eq!(with(&[]).audio_max_age, None);
        let age = |hours| {
            let env = Env::of(&[("ACESTEP_AUDIO_MAX_AGE_HOURS", hours)]);
            Config::new(&Flags::default(), &env).map(|c| c.audio_max_age)
        };
        assert_eq!(age("0.5"), Ok(Some(Duration::from_secs(1800))));
        assert_eq!(age("1e300"), Ok(None));
        for wrong in ["0", "-1", "nan"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn of_two_variables_the_temporary_folder_counts() {
        let c = with(&[("ACESTEP_DATA_DIR", "/x"), ("ACESTEP_TMPDIR", "/y")]);
        assert_eq!(c.tmp_dir, Path::new("/y"));
    }

    #[test]
    fn numbers_that_do_not_parse_end_the_start() {
        for name in [
            "ACESTEP_API_PORT",
            "ACESTEP_QUEUE_MAXSIZE",
            "ACESTEP_QUEUE_WORKERS",
            "ACESTEP_GENERATION_TIMEOUT",
            "ACESTEP_USE_FLASH_ATTENTION",
            "ACESTEP_AVG_JOB_SECONDS",
            "ACESTEP_AVG_WINDOW",
            "ACESTEP_API_WORKERS",
            "ACESTEP_MODELS_FORMAT",
            "ACESTEP_LM_BACKEND",
            "ACESTEP_LM_OFFLOAD_TO_CPU",
            "ACESTEP_OFFLOAD_TO_CPU",
            "ACESTEP_OFFLOAD_DIT_TO_CPU",
            "ACESTEP_COMPILE_MODEL",
            "ACESTEP_DOWNLOAD_SOURCE",
            "ACESTEP_AUDIO_MAX_AGE_HOURS",
            "TENSORBOARD_PORT",
        ] {
            let error = Config::new(&Flags::default(), &Env::of(&[(name, "x1")])).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let nan = Config::new(
            &Flags::default(),
            &Env::of(&[("ACESTEP_AVG_JOB_SECONDS", "nan")]),
        );
        assert!(nan.is_err());
    }
}
