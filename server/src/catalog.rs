//! Which models there are, as their folders and `config.json` say.

use crate::app::App;
use crate::resolve::ModelFacts;
use serde_json::{Value, json};
use std::path::Path;

/// Folders of diffusion models and of language models, by name. No folder: no models.
fn folders(checkpoints: &Path) -> (Vec<String>, Vec<String>) {
    let entries = std::fs::read_dir(checkpoints)
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<String> = entries
        .filter(|e| e.path().is_dir())
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| name.starts_with("acestep-"))
        .collect();
    names.sort();
    names
        .into_iter()
        .partition(|name| !name.starts_with("acestep-5Hz-lm-"))
}

/// What is known about a model. A folder or file that cannot be read counts as turbo: the job
/// will fail with the reason anyway.
pub fn facts(checkpoints: &Path, name: &str) -> ModelFacts {
    let text = std::fs::read_to_string(checkpoints.join(name).join("config.json"));
    let config: Option<Value> = text.ok().and_then(|t| serde_json::from_str(&t).ok());
    let is_turbo = config
        .as_ref()
        .and_then(|c| c.get("is_turbo"))
        .and_then(Value::as_bool);
    ModelFacts {
        name: name.to_owned(),
        is_turbo: is_turbo.unwrap_or(config.is_none()),
    }
}

/// The name of the model that a request gets: a configured one by its name, else the primary.
pub fn choose<'a>(configured: &'a [String], asked: Option<&str>) -> &'a str {
    let primary = configured.first().map_or("", String::as_str);
    let Some(asked) = asked.map(str::trim).filter(|name| !name.is_empty()) else {
        return primary;
    };
    let asked = asked.strip_prefix("acestep/").unwrap_or(asked);
    match configured.iter().find(|name| *name == asked) {
        Some(name) => name,
        None => {
            tracing::warn!("model {asked:?} is not loaded; {primary} is used");
            primary
        }
    }
}

fn tasks(is_turbo: bool) -> &'static [&'static str] {
    const ALL: [&str; 7] = [
        "text2music",
        "repaint",
        "cover",
        "cover-nofsq",
        "extract",
        "lego",
        "complete",
    ];
    if is_turbo { &ALL[..4] } else { &ALL }
}

/// The model list in its documented form: the default model first, the others by name.
pub fn documented(app: &App) -> Value {
    let loaded = app.loaded();
    let primary = app.config.primary();
    let (mut names, lms) = folders(&app.config.checkpoints);
    for name in &loaded {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names.sort_by_key(|name| (name != primary, name.clone()));
    let models: Vec<Value> = names
        .iter()
        .map(|name| {
            json!({
                "name": name,
                "is_default": name == primary,
                "is_loaded": loaded.contains(name),
                "supported_task_types": tasks(facts(&app.config.checkpoints, name).is_turbo),
            })
        })
        .collect();
    let lms: Vec<Value> = lms
        .iter()
        .map(|name| json!({ "name": name, "is_loaded": false }))
        .collect();
    json!({
        "models": models,
        "default_model": primary,
        "lm_models": lms,
        "loaded_lm_model": null,
        "llm_initialized": false,
    })
}

/// The loaded models as OpenRouter lists them.
pub fn openrouter(app: &App, created: u64) -> Value {
    let entry = |name: &String| {
        json!({
            "id": format!("acestep/{name}"),
            "name": format!("ACE-Step {name}"),
            "created": created,
            "input_modalities": ["text", "audio"],
            "output_modalities": ["audio", "text"],
            "context_length": 4096,
            "max_output_length": 300,
            "pricing": { "prompt": "0", "completion": "0", "request": "0", "image": "0" },
            "description": "Music from a caption and lyrics",
            "architecture": null,
        })
    };
    json!({ "object": "list", "data": app.loaded().iter().map(entry).collect::<Vec<_>>() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_chosen_among_the_configured() {
        let configured = ["a".to_owned(), "b".to_owned()];
        for (asked, expected) in [
            (None, "a"),
            (Some("a"), "a"),
            (Some("b"), "b"),
            (Some("acestep/b"), "b"),
            (Some(" b "), "b"),
            (Some("c"), "a"),
            (Some(""), "a"),
        ] {
            assert_eq!(choose(&configured, asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn facts_come_from_the_configuration_file() {
        let dir = tempfile::tempdir().unwrap();
        for (name, config, is_turbo) in [
            ("t", Some("{\"is_turbo\": true}"), true),
            ("b", Some("{\"is_turbo\": false}"), false),
            ("o", Some("{}"), false),
            ("broken", Some("{"), true),
            ("none", None, true),
        ] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
            if let Some(config) = config {
                std::fs::write(dir.path().join(name).join("config.json"), config).unwrap();
            }
            assert_eq!(facts(dir.path(), name).is_turbo, is_turbo, "{name}");
        }
    }
}
