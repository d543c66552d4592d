//! `acestep serve`: the HTTP API.

use super::Outcome;
use super::device::{DeviceArgs, DeviceKind};
use super::model::{demo_dir, noise, print_line};
use crate::config::{Config, Flags};
use crate::env::Env;
use crate::maker::OpenMaker;
use crate::run::Server;
use engine::song::{Engine, EngineOptions};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use std::path::PathBuf;

/// Flags of `serve`. A flag beats its variable.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Make a small demonstration checkpoint and serve it
    #[arg(long)]
    pub demo: bool,
    /// Directory with the model folders [default: $ACESTEP_CHECKPOINTS_DIR or ./checkpoints]
    #[arg(long, value_name = "DIR")]
    pub checkpoints: Option<PathBuf>,
    /// Directory for results and temporary files [default: $ACESTEP_TMPDIR,
    /// $ACESTEP_DATA_DIR or .cache/acestep]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address to listen on [default: $ACESTEP_API_HOST or 127.0.0.1]
    #[arg(long)]
    pub host: Option<String>,
    /// Port to listen on, 0 for a free one [default: $ACESTEP_API_PORT or 8001]
    #[arg(long)]
    pub port: Option<u16>,
    /// Key that clients must show [default: $ACESTEP_API_KEY or none]
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Load models with the first job instead of at start [default: $ACESTEP_NO_INIT or true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true")]
    pub no_init: Option<bool>,
    /// Folder of the language model under the checkpoints [default: $ACESTEP_LM_MODEL_PATH,
    /// acestep-5Hz-lm-0.6B, or the first there is]
    #[arg(long, value_name = "NAME")]
    pub lm_model_path: Option<String>,
    /// Device of the language model [default: $ACESTEP_LM_DEVICE, else that of --backend]
    #[arg(long, visible_alias = "lm-backend", value_name = "NAME")]
    pub lm_device: Option<String>,
    /// Load the language model with the other models [default: $ACESTEP_INIT_LLM or auto: when
    /// it is there and fits; false keeps requests from loading it too]
    #[arg(long)]
    pub init_llm: bool,
    /// Accepted for compatibility: nothing is downloaded
    #[arg(long, hide = true)]
    pub download_source: Option<String>,
    /// Where and how to compute.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Serves until SIGINT or SIGTERM.
pub fn run(args: Args) -> Result<Outcome> {
    let env = Env::of_process();
    // A device that this build has no kernels for is refused now, not with the first job.
    if !matches!(args.device.check(&env)?, DeviceKind::Auto | DeviceKind::Cpu) {
        args.device.open_with(&env)?;
    }
    args.device.open_lm_with(args.lm_device.as_deref(), &env)?;
    let noise = noise(&env)?;
    let checkpoints = if args.demo {
        Some(demo_dir(args.checkpoints)?)
    } else {
        args.checkpoints
    };
    let flags = Flags {
        checkpoints,
        data: args.data,
        host: args.host,
        port: args.port,
        api_key: args.api_key,
        no_init: args.no_init,
        init_llm: args.init_llm,
        lm_model: args.lm_model_path,
    };
    let mut config = Config::new(&flags, &env)?;
    prefer_what_is_there(&mut config, &env);
    let (device, lm_device) = (args.device, args.lm_device);
    let checkpoints = config.checkpoints.clone();
    let open: OpenMaker = Box::new(move || {
        let lm_device = device.open_lm_with(lm_device.as_deref(), &env)?;
        let device = device.open_with(&env)?;
        tracing::info!("computing on {}", device.backend.caps().name);
        if let Some(lm_device) = &lm_device {
            let name = lm_device.backend.caps().name.as_str();
            tracing::info!("computing language models on {name}");
        }
        let options = EngineOptions {
            checkpoints: checkpoints.clone(),
            device,
            lm_device,
            noise,
        };
        Ok(Box::new(Engine::open(options)?))
    });
    let server = match Server::start(config, open) {
        Ok(server) => server,
        // A port that is taken is no fault of the arguments.
        Err(Error::Device(text)) => {
            eprintln!("acestep: {text}");
            return Ok(Outcome::Failed);
        }
        Err(error) => return Err(error),
    };
    // For people, and for programs that asked for port 0.
    server.run(|addr| {
        if let Err(e) = print_line(&format!("listening on http://{addr}")) {
            tracing::warn!("{e}");
        }
    })?;
    Ok(Outcome::Done)
}

/// Without a name for the primary model, the tree's own choice serves; a tree that is not there
/// yet is worth a warning.
fn prefer_what_is_there(config: &mut Config, env: &Env) {
    match Checkpoints::open(&config.checkpoints) {
        Err(error) => tracing::warn!(
            "{error}; a job that finds nothing fails, and so do all after it: put it there before \
             the first job, or send POST /v1/init then"
        ),
        Ok(tree) => {
            if env.text("ACESTEP_CONFIG_PATH").is_none()
                && let Ok(model) = tree.dit(None)
            {
                config.models.set(1, &model.name);
            }
        }
    }
}
