//! What `format`, `sample` and `understand` share: a language model, one description, how it is
//! shown.

use super::Outcome;
use super::bar::Bar;
use super::lm::LmArgs;
use super::model::{ModelArgs, noise, print_line};
use crate::coerce::Seed;
use crate::env::Env;
use crate::fields::RawRequest;
use crate::resolve::{Caller, ModelFacts, resolve};
use engine::song::{DescribeRequest, Description, Engine, EngineOptions, Facts, Subject};
use engine::{Error, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;
use uuid::Uuid;

/// Flags of every description.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DescribeArgs {
    /// Seed [default: random]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
    /// Which language model, and how it draws tokens.
    #[command(flatten)]
    pub lm: LmArgs,
    /// Where the models are and on what they run.
    #[command(flatten)]
    pub model: ModelArgs,
}

/// What is to be described.
pub enum Material {
    /// Texts or codes.
    Subject(Subject),
    /// A recording, whose codes are those of this diffusion model, without a name the default.
    Recording(PathBuf, Option<String>),
}

/// What a subcommand wants described.
pub struct Wanted {
    /// What is to be described.
    pub material: Material,
    /// The user's own values, not checked yet; a value that is not given stays `None`.
    pub known: RawRequest,
    /// Temperature where no flag says another.
    pub temperature: f64,
}

/// A description and where it came from.
pub struct Described {
    /// What the model wrote, and what was known.
    pub description: Description,
    /// What was described.
    pub subject: Subject,
    /// Name of the language model.
    lm: String,
    /// Name of the device.
    device: String,
    seed: u64,
    load_s: f64,
    total_s: f64,
}

/// Asks the language model.
///
/// # Errors
/// [`Error::Request`] for values that are out of range, and when the model wrote nothing.
pub fn describe(wanted: Wanted, args: &DescribeArgs) -> Result<Described> {
    let (started, env) = (Instant::now(), Env::of_process());
    args.model.device.check(&env)?;
    let noise = noise(&env)?;
    let (mut request, recording) = request(wanted, args)?;
    let checkpoints = args.model.dir(&env)?;
    let device = args.model.device.open_with(&env)?;
    let lm_device = args.lm.open_device(&args.model.device, &env)?;
    let name = lm_device.as_ref().unwrap_or(&device);
    let name = name.backend.caps().name.clone();
    let mut engine = Engine::open(EngineOptions {
        checkpoints,
        device,
        lm_device,
        noise,
    })?;
    let bar = Bar::new();
    let run = || {
        engine.load_lm(args.lm.lm.as_deref(), &bar)?;
        let load_s = started.elapsed().as_secs_f64();
        if let Some((file, model)) = recording {
            let model = engine.checkpoints().dit(model.as_deref())?.name.clone();
            let codes = engine.codes_of_audio(&model, &file, &bar)?;
            request.subject = Subject::Codes(codes);
        }
        Ok((load_s, engine.describe(&request, &bar)?))
    };
    let done = run();
    bar.clear();
    let (load_s, description) = done?;
    for event in &description.events {
        eprintln!("{event}");
    }
    if description.caption.is_none() && description.lyrics.is_none() {
        return Err(Error::Request(
            "the language model wrote nothing that can be used: leave out --no-constrained, or \
             try another --seed"
                .into(),
        ));
    }
    Ok(Described {
        description,
        subject: request.subject,
        lm: engine.lm().unwrap_or_default().to_owned(),
        device: name,
        seed: request.seed,
        load_s,
        total_s: started.elapsed().as_secs_f64(),
    })
}

/// A file, and the name of a diffusion model.
type Recording = (PathBuf, Option<String>);

/// The flags as the engine wants them, checked as those of a song are. The codes of a recording
/// are still to be found.
fn request(wanted: Wanted, args: &DescribeArgs) -> Result<(DescribeRequest, Option<Recording>)> {
    let mut raw = wanted.known;
    args.lm.fill(&mut raw);
    raw.lm_temperature = raw.lm_temperature.or(Some(wanted.temperature));
    // A description is drawn from all tokens unless a flag says otherwise.
    raw.lm_top_p = raw.lm_top_p.or(Some(1.0));
    raw.seed = args.seed.map(|seed| Seed::Number(i128::from(seed)));
    raw.use_random_seed = Some(args.seed.is_none());
    raw.batch_size = Some(1);
    let has_language = raw.vocal_language.is_some();
    // No music is made, so that nothing depends on the diffusion model.
    let facts = ModelFacts {
        name: String::new(),
        is_turbo: true,
    };
    let mut random = || Uuid::new_v4().as_fields().0;
    let resolved = resolve(&raw, &facts, Caller::CommandLine, &mut random)
        .map_err(|refusal| Error::Request(refusal.0))?;
    let song = resolved.song;
    let planning = song
        .planning
        .ok_or_else(|| Error::Bug("a request without a planning".into()))?;
    let (subject, recording) = match wanted.material {
        Material::Subject(subject) => (subject, None),
        Material::Recording(file, model) => (Subject::Codes(Vec::new()), Some((file, model))),
    };
    let request = DescribeRequest {
        subject,
        known: Facts {
            metas: song.metas,
            duration_s: song.duration_s,
            language: Some(song.language).filter(|l| has_language && l != "unknown"),
        },
        sampling: planning.sampling,
        seed: song.seeds.first().copied().unwrap_or(0),
        constrained: planning.constrained,
        debug: planning.debug,
    };
    Ok((request, recording))
}

impl Described {
    /// Prints the description; `more` are further keys of the JSON object.
    pub fn print(&self, args: &DescribeArgs, more: &[(&str, Value)]) -> Result<Outcome> {
        match args.json {
            true => print_line(&self.json(more).to_string())?,
            false => print_line(&self.text())?,
        }
        Ok(Outcome::Done)
    }

    fn json(&self, more: &[(&str, Value)]) -> Value {
        let Facts {
            metas,
            duration_s,
            language,
        } = &self.description.facts;
        let mut out = json!({
            "caption": self.description.caption,
            "lyrics": self.description.lyrics,
            "bpm": metas.bpm,
            "key_scale": metas.key_scale,
            "time_signature": metas.time_signature,
            "duration": duration_s,
            "vocal_language": language.as_deref().unwrap_or("unknown"),
            "seed": self.seed,
            "lm": self.lm,
            "device": self.device,
            "load_s": self.load_s,
            "total_s": self.total_s,
        });
        for (key, value) in more {
            out[*key] = value.clone();
        }
        out
    }

    fn text(&self) -> String {
        // A terminal would take control characters, which a model may write, for commands.
        let shown = |c: char| match c {
            '\n' | '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        self.plain().chars().map(shown).collect()
    }

    fn plain(&self) -> String {
        let facts = &self.description.facts;
        let mut out = String::new();
        let mut line = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                out.push_str(&format!("{name}: {value}\n"));
            }
        };
        line("caption", self.description.caption.clone());
        line("bpm", facts.metas.bpm.map(|bpm| bpm.to_string()));
        line("key", facts.metas.key_scale.clone());
        line("time signature", facts.metas.time_signature.clone());
        line("duration", facts.duration_s.map(|s| format!("{s} s")));
        line("language", facts.language.clone());
        if let Some(lyrics) = &self.description.lyrics {
            out.push_str(&format!("lyrics:\n{lyrics}\n"));
        }
        out.push_str(&format!(
            "\nseed {}, {:.1} s on {} by {}",
            self.seed, self.total_s, self.device, self.lm
        ));
        out
    }
}
