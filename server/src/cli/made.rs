//! What `generate` tells of a song that it made.

use super::model::print_line;
use engine::Result;
use engine::audio;
use engine::song::{Composed, Song};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Everything that is told of a song.
pub struct Made<'a> {
    /// The song.
    pub song: &'a Song,
    /// Its files, one per item.
    pub files: &'a [PathBuf],
    /// Files of its audio codes.
    pub codes_files: &'a [PathBuf],
    /// Name of the language model that is loaded.
    pub lm: Option<&'a str>,
    /// Name of the device.
    pub device: &'a str,
    /// How long it took.
    pub seconds: f64,
}

impl Made<'_> {
    /// Seconds of one item.
    fn length(&self, samples: usize) -> f64 {
        (samples / audio::CHANNELS) as f64 / f64::from(self.song.sample_rate)
    }

    /// One JSON object.
    pub fn report(&self) -> Value {
        let song = self.song;
        let items = self.files.iter().zip(&song.items).map(|(file, item)| {
            let mut told = json!({
                "file": file,
                "seed": item.seed,
                "seconds": self.length(item.pcm.len()),
            });
            if let Some(lrc) = &item.lrc {
                told["lrc"] = lrc.as_str().into();
            }
            told
        });
        let mut report = json!({
            "items": items.collect::<Vec<_>>(),
            "model": song.composed.request.model,
            "device": self.device,
            "sample_rate": song.sample_rate,
            "steps": song.times.steps,
            "shift": song.composed.request.sampling.shift,
            "times": song.times,
            "total_s": self.seconds,
        });
        if song.composed.planned || !song.composed.request.codes.is_empty() {
            report["plan"] = self.plan();
        }
        report
    }

    /// What the song was made from, where it is not only what the user wrote.
    fn plan(&self) -> Value {
        let Composed { request, notes, .. } = &self.song.composed;
        let counts = request.codes.iter().map(Vec::len);
        json!({
            "lm": self.lm,
            "caption": request.caption,
            "lyrics": request.lyrics,
            "bpm": request.metas.bpm,
            "key_scale": request.metas.key_scale,
            "time_signature": request.metas.time_signature,
            "duration": request.duration_s,
            "vocal_language": request.language,
            "codes": counts.collect::<Vec<_>>(),
            "codes_files": self.codes_files,
            "reason_s": self.song.times.reason_s,
            "codes_s": self.song.times.codes_s,
            "notes": notes,
        })
    }

    /// Lines for a person, on stdout.
    pub fn print_summary(&self) -> Result<()> {
        for (file, item) in self.files.iter().zip(&self.song.items) {
            print_line(&format!(
                "{}  {:.1} s  seed {}",
                file.display(),
                self.length(item.pcm.len()),
                item.seed
            ))?;
        }
        let t = &self.song.times;
        if let (true, Some(lm)) = (self.song.composed.planned, self.lm) {
            let codes = self.song.composed.request.codes.iter().map(Vec::len).max();
            print_line(&format!(
                "planned by {lm}: texts and metadata {:.1} s, {} codes {:.1} s",
                t.reason_s,
                codes.unwrap_or(0),
                t.codes_s
            ))?;
        }
        for note in &self.song.composed.notes {
            print_line(&format!("note: {note}"))?;
        }
        print_line(&format!(
            "{:.1} s on {}: load {:.1}, recordings {:.1}, text {:.1}, condition {:.1}, diffusion \
             {:.1} ({} evaluations), decoding {:.1}",
            self.seconds,
            self.device,
            t.load_s,
            t.read_s + t.encode_s,
            t.text_s,
            t.condition_s,
            t.diffuse_s,
            t.evaluations,
            t.decode_s
        ))
    }
}
