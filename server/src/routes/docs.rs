//! `GET /docs` and `GET /openapi.json`, both written from the table of fields.

use crate::coerce::Kind;
use crate::fields::FIELDS;
use crate::reply::{Reply, json, whole};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Method, path and purpose of every route.
const ROUTES: [(&str, &str, &str); 11] = [
    ("post", "/release_task", "Queue a song"),
    ("post", "/query_result", "State and results of jobs"),
    (
        "post",
        "/create_random_sample",
        "An example to fill a form with: sample_type simple_mode or custom_mode",
    ),
    (
        "post",
        "/format_input",
        "Caption and lyrics in the language model's own form, and metadata for them",
    ),
    (
        "post",
        "/v1/create_sample",
        "A song in words that the language model invents from a wish",
    ),
    (
        "post",
        "/v1/init",
        "Another model in a slot, a language model, or the same ones anew",
    ),
    ("get", "/v1/audio", "A result file"),
    ("get", "/health", "Whether the server is up"),
    ("get", "/v1/stats", "Jobs and queue"),
    ("get", "/v1/models", "Models"),
    ("get", "/v1/model_inventory", "Models"),
];

/// The page for people.
pub fn page() -> Reply {
    let mut html = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>ACE-Step API</title>\
         <style>body{font:15px sans-serif;margin:2em;max-width:70em}td,th{text-align:left;\
         padding:.2em .8em;vertical-align:top}code{white-space:nowrap}</style>\
         <h1>ACE-Step API</h1><h2>Routes</h2><table>",
    );
    for (method, path, purpose) in ROUTES {
        let method = method.to_uppercase();
        // Writing to a string cannot fail.
        let _ = write!(html, "<tr><td>{method}<td><code>{path}</code><td>{purpose}");
    }
    html.push_str("</table><h2>Fields of <code>/release_task</code></h2><table>");
    html.push_str("<tr><th>Name<th>Type<th>Default<th>Meaning<th>Other names");
    for field in FIELDS {
        let _ = write!(
            html,
            "<tr><td><code>{}</code><td>{}<td><code>{}</code><td>{}<td>{}",
            field.name,
            field.kind.name(),
            field.default,
            field.help,
            field.aliases.join(", ")
        );
    }
    html.push_str("</table>\n");
    whole(StatusCode::OK, "text/html; charset=utf-8", html)
}

fn schema_type(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!("string"),
        Kind::Int => json!("integer"),
        Kind::Float => json!("number"),
        Kind::Bool => json!("boolean"),
        Kind::Texts => json!(["array", "string"]),
        Kind::Seed => json!(["integer", "string"]),
    }
}

/// The schema for programs.
pub fn schema() -> Reply {
    let mut properties = Map::new();
    for field in FIELDS {
        let mut entry = json!({ "type": schema_type(field.kind), "description": field.help });
        if let Some((low, high)) = field.range {
            entry["minimum"] = json!(low);
            entry["maximum"] = json!(high);
        }
        if !field.choices.is_empty() {
            entry["enum"] = json!(field.choices);
        }
        properties.insert(field.name.to_owned(), entry);
    }
    let mut paths = Map::new();
    for (method, path, purpose) in ROUTES {
        let mut operation = json!({
            "summary": purpose,
            "responses": { "200": { "description": "Successful Response" } },
        });
        let properties = match path {
            "/release_task" => json!(properties),
            "/create_random_sample" => json!({ "sample_type": {
                "type": "string", "enum": ["simple_mode", "custom_mode"],
            } }),
            "/format_input" => json!({
                "prompt": { "type": "string" },
                "lyrics": { "type": "string" },
                "temperature": { "type": "number", "minimum": 0, "maximum": 2 },
                "param_obj": {
                    "type": ["object", "string"],
                    "description": "duration, bpm, key, time_signature, language: they stay",
                },
            }),
            "/v1/create_sample" => json!({
                "query": { "type": "string" },
                "instrumental": { "type": "boolean" },
                "vocal_language": { "type": "string" },
                "temperature": { "type": "number", "minimum": 0, "maximum": 2 },
            }),
            "/v1/init" => json!({
                "model": { "type": ["string", "null"] },
                "slot": { "type": ["integer", "null"], "minimum": 1, "maximum": 3 },
                "init_llm": { "type": "boolean" },
                "lm_model_path": { "type": ["string", "null"] },
            }),
            _ => Value::Null,
        };
        if !properties.is_null() {
            operation["requestBody"] = json!({
                "content": { "application/json": {
                    "schema": { "type": "object", "properties": properties },
                } },
            });
        }
        paths.insert(path.to_owned(), json!({ method: operation }));
    }
    json(
        StatusCode::OK,
        &json!({
            "openapi": "3.1.0",
            "info": { "title": "ACE-Step API", "version": "1.0" },
            "paths": paths,
        }),
    )
}
