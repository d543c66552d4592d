//! The flags of the language model, one struct for every subcommand that asks it.

use super::codes;
use super::device::DeviceArgs;
use super::generate::number;
use crate::coerce::Texts;
use crate::env::Env;
use crate::fields::RawRequest;
use engine::backend::Device;
use engine::text::print_codes;
use engine::{Error, Result};

/// Which language model, and how it draws tokens.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LmArgs {
    /// Language model folder [default: acestep-5Hz-lm-0.6B, else the first there is]
    #[arg(long, value_name = "NAME", help_heading = "Language model")]
    pub lm: Option<String>,
    /// Device of the language model [default: $ACESTEP_LM_DEVICE, else that of --backend]
    #[arg(long, value_name = "NAME", help_heading = "Language model")]
    pub lm_device: Option<String>,
    /// Temperature, 0 to 2; 0 takes the likeliest token [default: 0.85; 0.3 to understand]
    #[arg(long, visible_alias = "temperature", value_name = "X", value_parser = number,
          help_heading = "Language model")]
    pub lm_temperature: Option<f64>,
    /// Draw from the N likeliest tokens [default: all]
    #[arg(
        long,
        visible_alias = "top-k",
        value_name = "N",
        help_heading = "Language model"
    )]
    pub lm_top_k: Option<u32>,
    /// Draw from the likeliest tokens of this total probability [default: 0.9 for a song; all
    /// for a description]
    #[arg(long, visible_alias = "top-p", value_name = "X", value_parser = share,
          help_heading = "Language model")]
    pub lm_top_p: Option<f64>,
    /// Penalty of tokens that were written before, 0.1 to 10 [default: 1, none]
    #[arg(long, visible_alias = "repetition-penalty", value_name = "X", value_parser = number,
          help_heading = "Language model")]
    pub lm_repetition_penalty: Option<f64>,
    /// Let it write metadata that does not keep the grammar
    #[arg(long, help_heading = "Language model")]
    pub no_constrained: bool,
    /// Print every step of the grammar to stderr
    #[arg(long, help_heading = "Language model")]
    pub constrained_debug: bool,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..=1.0).contains(&x) => Ok(x),
        _ => Err("a number from 0 to 1 is needed".into()),
    }
}

impl LmArgs {
    /// Puts the flags into a request.
    pub fn fill(&self, raw: &mut RawRequest) {
        raw.lm_model_path = self.lm.clone();
        raw.lm_temperature = self.lm_temperature;
        raw.lm_top_k = self.lm_top_k.map(i64::from);
        raw.lm_top_p = self.lm_top_p;
        raw.lm_repetition_penalty = self.lm_repetition_penalty;
        raw.constrained_decoding = self.no_constrained.then_some(false);
        raw.constrained_decoding_debug = Some(self.constrained_debug);
    }

    /// The language model's device where it is to be another one than that of `device`.
    pub fn open_device(&self, device: &DeviceArgs, env: &Env) -> Result<Option<Device>> {
        device.open_lm_with(self.lm_device.as_deref(), env)
    }

    /// The first flag that was given, but for the name.
    fn first_given(&self) -> Option<&'static str> {
        [
            ("--lm-device", self.lm_device.is_some()),
            ("--lm-temperature", self.lm_temperature.is_some()),
            ("--lm-top-k", self.lm_top_k.is_some()),
            ("--lm-top-p", self.lm_top_p.is_some()),
            (
                "--lm-repetition-penalty",
                self.lm_repetition_penalty.is_some(),
            ),
            ("--no-constrained", self.no_constrained),
            ("--constrained-debug", self.constrained_debug),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

/// What the language model does before a song is made.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PlanningArgs {
    /// Plan the song: metadata, then audio codes that the music follows
    #[arg(long, help_heading = "Language model")]
    pub thinking: bool,
    /// Invent caption, lyrics and metadata from a wish
    #[arg(long, value_name = "TEXT", help_heading = "Language model",
          conflicts_with_all = ["prompt", "lyrics", "lyrics_file"])]
    pub sample_query: Option<String>,
    /// Rewrite caption and lyrics first
    #[arg(long, help_heading = "Language model")]
    pub use_format: bool,
    /// Keep the caption as it is while planning
    #[arg(long, help_heading = "Language model")]
    pub no_cot_caption: bool,
    /// Do not find out the language while planning
    #[arg(long, help_heading = "Language model")]
    pub no_cot_language: bool,
    /// Do not complete tempo, key, time signature and duration
    #[arg(long, help_heading = "Language model")]
    pub no_cot_metas: bool,
    /// Plan several songs one after the other
    #[arg(long, help_heading = "Language model")]
    pub no_lm_batch: bool,
    /// Guidance of the audio codes, 1 to 100; 1 is off [default: 2.5]
    #[arg(long, value_name = "X", value_parser = number, help_heading = "Language model")]
    pub lm_cfg_scale: Option<f64>,
    /// What the audio codes are guided away from
    #[arg(long, value_name = "TEXT", help_heading = "Language model")]
    pub lm_negative_prompt: Option<String>,
    /// Audio codes to make the song from: a file, or <|audio_code_N|> or numbers with commas;
    /// once for all songs, or once for each
    #[arg(long, value_name = "FILE|CODES", help_heading = "Language model")]
    pub codes: Vec<String>,
    /// Write the audio codes to a file; several songs get -1, -2, ... before the ending
    #[arg(long, value_name = "FILE", help_heading = "Language model")]
    pub codes_out: Option<std::path::PathBuf>,
    /// Which language model, and how it draws tokens.
    #[command(flatten)]
    pub lm: LmArgs,
}

impl PlanningArgs {
    /// Puts the flags into a request. Reads the files of `--codes`.
    pub fn fill(&self, raw: &mut RawRequest) -> Result<()> {
        self.lm.fill(raw);
        raw.thinking = Some(self.thinking);
        raw.sample_query = self.sample_query.clone();
        raw.sample_mode = self.sample_query.as_ref().map(|_| true);
        raw.use_format = Some(self.use_format);
        raw.use_cot_caption = self.no_cot_caption.then_some(false);
        raw.use_cot_language = self.no_cot_language.then_some(false);
        raw.use_cot_metas = self.no_cot_metas.then_some(false);
        raw.allow_lm_batch = self.no_lm_batch.then_some(false);
        raw.lm_cfg_scale = self.lm_cfg_scale;
        raw.lm_negative_prompt = self.lm_negative_prompt.clone();
        let lists = self.codes.iter().map(|text| codes::read("--codes", text));
        let lists = lists.map(|list| Ok(print_codes(&list?)));
        let lists = lists.collect::<Result<Vec<String>>>()?;
        raw.audio_code_string = (!lists.is_empty()).then_some(Texts(lists));
        Ok(())
    }

    /// Whether a language model is loaded: when something needs it, or when it is named.
    pub fn is_asked_for(&self) -> bool {
        self.thinking || self.sample_query.is_some() || self.use_format || self.lm.lm.is_some()
    }

    /// Refuses flags that would have no effect.
    pub fn check(&self) -> Result<()> {
        if !self.is_asked_for()
            && let Some(flag) = self.first_given()
        {
            return Err(Error::Request(format!(
                "{flag} has no effect without the language model: add --thinking, \
                 --sample-query, --use-format or --lm"
            )));
        }
        if self.codes_out.is_some() && self.codes.is_empty() && !self.thinking {
            return Err(Error::Request(
                "--codes-out: there are no audio codes to write without --thinking or --codes"
                    .into(),
            ));
        }
        Ok(())
    }

    fn first_given(&self) -> Option<&'static str> {
        [
            ("--no-cot-caption", self.no_cot_caption),
            ("--no-cot-language", self.no_cot_language),
            ("--no-cot-metas", self.no_cot_metas),
            ("--no-lm-batch", self.no_lm_batch),
            ("--lm-cfg-scale", self.lm_cfg_scale.is_some()),
            ("--lm-negative-prompt", self.lm_negative_prompt.is_some()),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
        .or_else(|| self.lm.first_given())
    }
}
