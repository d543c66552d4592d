//! Which models there are, as their folders and `config.json` say.

use crate::app::App;
use crate::resolve::ModelFacts;
use crate::slots::Slots;
use engine::models::config::DitConfig;
use engine::weights::Checkpoints;
use engine::weights::tree::Model;
use serde_json::{Value, json};
use std::path::Path;

/// What is known about a model. One that is not there or cannot be read counts as turbo: the job
/// will fail with the reason anyway.
pub fn facts(checkpoints: &Path, name: &str) -> ModelFacts {
    let config = Checkpoints::open(checkpoints)
        .and_then(|tree| DitConfig::load(&tree.dit(Some(name))?.path));
    ModelFacts {
        name: name.to_owned(),
        is_turbo: config.map_or(true, |c| c.is_turbo),
    }
}

/// The name of the model that a request gets: one of a slot by its name, else the primary.
pub fn choose(slots: &Slots, asked: Option<&str>) -> String {
    let primary = slots.primary();
    let Some(asked) = asked.map(str::trim).filter(|name| !name.is_empty()) else {
        return primary.to_owned();
    };
    let asked = asked.strip_prefix("acestep/").unwrap_or(asked);
    match slots.names().into_iter().find(|name| name == asked) {
        Some(name) => name,
        None => {
            tracing::warn!("model {asked:?} is not loaded; {primary} is used");
            primary.to_owned()
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
    let (loaded, slots, lm) = (app.loaded(), app.slots(), app.lm());
    let primary = slots.primary();
    let tree = Checkpoints::open(&app.config.checkpoints).ok();
    let list = |models: Option<&[Model]>| -> Vec<String> {
        models
            .unwrap_or_default()
            .iter()
            .map(|m| m.name.clone())
            .collect()
    };
    let mut names = list(tree.as_ref().map(Checkpoints::dits));
    let mut lms = list(tree.as_ref().map(Checkpoints::lms));
    lms.extend(lm.loaded.clone().filter(|name| !lms.contains(name)));
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
        .map(|name| json!({ "name": name, "is_loaded": lm.loaded.as_ref() == Some(name) }))
        .collect();
    json!({
        "models": models,
        "default_model": primary,
        "lm_models": lms,
        "loaded_lm_model": lm.loaded,
        "llm_initialized": lm.loaded.is_some(),
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
mod tests {
    use super::*;

    #[test]
    fn a_model_is_chosen_among_the_configured() {
        let slots = Slots::new("a".into(), None, Some("b".into()));
        for (asked, expected) in [
            (None, "a"),
            (Some("a"), "a"),
            (Some("b"), "b"),
            (Some("acestep/b"), "b"),
            (Some(" b "), "b"),
            (Some("c"), "a"),
            (Some(""), "a"),
        ] {
            assert_eq!(choose(&slots, asked), expected, "{asked:?}");
        }
    }
}
