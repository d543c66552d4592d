//! `GET /docs` and `GET /openapi.json`, written from the tables of routes and fields.

use super::{Guard, ROUTES, Route, Row};
use crate::chat;
use crate::coerce::Kind;
use crate::fields::{FIELDS, Field, names};
use crate::reply::{Reply, json, whole};
use hyper::{Method, StatusCode};
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// Fields of a multipart form that hold files.
const FILES: [&str; 4] = ["ref_audio", "reference_audio", "ctx_audio", "src_audio"];

/// The page for people.
pub fn page() -> Reply {
    let mut html = String::from(
        "<!doctype html><meta charset=\"utf-8\"><title>ACE-Step API</title>\
         <style>body{font:15px sans-serif;margin:2em;max-width:80em}td,th{text-align:left;\
         padding:.2em .8em;vertical-align:top}code{white-space:nowrap}</style>\
         <h1>ACE-Step API</h1><p>For programs: <a href=\"openapi.json\">openapi.json</a>.\
         <h2>Routes</h2><table><tr><th>Method<th>Path<th>Key<th>Purpose",
    );
    for Row {
        method,
        path,
        guard,
        help,
        ..
    } in ROUTES
    {
        let key = match guard {
            Guard::Open => "",
            Guard::Header => "Authorization",
            Guard::Body => "ai_token or Authorization",
        };
        // Writing to a string cannot fail.
        let _ = write!(
            html,
            "<tr><td>{method}<td><code>{path}</code><td>{key}<td>{help}"
        );
    }
    html.push_str("</table><h2>Fields of <code>/release_task</code></h2><table>");
    html.push_str("<tr><th>Name<th>Type<th>Default<th>Range<th>Meaning<th>Other names");
    for field in FIELDS {
        let range = match field.range {
            Some((low, high)) => format!("{low} to {high}"),
            None => field.choices.join(", "),
        };
        let _ = write!(
            html,
            "<tr><td><code>{}</code><td>{}<td><code>{}</code><td>{range}<td>{}<td>{}",
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

/// The default as JSON; `None` where there is none.
fn default_of(field: &Field) -> Option<Value> {
    let text = field.default.trim_matches(['(', ')']).replace("- ", "-");
    // The table writes defaults as Rust does, which for these is JSON.
    let value: Value = serde_json::from_str(&text).ok()?;
    (!value.is_null()).then_some(value)
}

/// The fields of `/release_task`.
fn fields() -> Map<String, Value> {
    let mut properties = Map::new();
    for (index, field) in FIELDS.iter().enumerate() {
        let mut entry = json!({ "type": schema_type(field.kind), "description": field.help });
        if field.kind == Kind::Texts {
            entry["items"] = json!({ "type": "string" });
        }
        if let Some((low, high)) = field.range {
            entry["minimum"] = json!(low);
            entry["maximum"] = json!(high);
        }
        if !field.choices.is_empty() {
            entry["enum"] = json!(field.choices);
        }
        if let Some(default) = default_of(field) {
            entry["default"] = default;
        }
        let others: Vec<&str> = names(index)
            .iter()
            .map(String::as_str)
            .filter(|name| *name != field.name)
            .collect();
        if !others.is_empty() {
            entry["x-other-names"] = json!(others);
        }
        properties.insert(field.name.to_owned(), entry);
    }
    properties
}

/// The fields of a body; `None` for a route that reads none.
fn properties(route: Route) -> Option<Value> {
    let text = || json!({ "type": "string" });
    let maybe_text = || json!({ "type": ["string", "null"] });
    let switch = || json!({ "type": "boolean", "default": false });
    let temperature = || json!({ "type": "number", "minimum": 0, "maximum": 2, "default": 0.85 });
    Some(match route {
        Route::ReleaseTask => json!(fields()),
        Route::QueryResult => json!({ "task_id_list": {
            "type": ["array", "string"], "items": text(),
            "description": "Identifiers as a list, or as a text that holds a JSON list",
        } }),
        Route::CreateRandomSample => json!({ "sample_type": {
            "type": "string", "enum": ["simple_mode", "custom_mode"], "default": "simple_mode",
        } }),
        Route::FormatInput => json!({
            "prompt": text(),
            "lyrics": text(),
            "temperature": temperature(),
            "param_obj": {
                "type": ["object", "string"],
                "description": "duration, bpm, key, time_signature, language: they stay",
            },
        }),
        Route::CreateSample => json!({
            "query": text(),
            "instrumental": switch(),
            "vocal_language": text(),
            "temperature": temperature(),
        }),
        Route::Init => json!({
            "model": maybe_text(),
            "slot": { "type": ["integer", "null"], "minimum": 1, "maximum": 3, "default": 1 },
            "init_llm": switch(),
            "lm_model_path": maybe_text(),
        }),
        Route::Unload => json!({ "dit": switch(), "llm": switch() }),
        Route::CancelTask => json!({ "task_id": text(), "job_id": text() }),
        Route::CancelAllTasks => json!({}),
        Route::ChatCompletions => chat(),
        _ => return None,
    })
}

/// A chat request; beside these every field of `/release_task` is read.
fn chat() -> Value {
    let mut known = fields();
    // Here a field has one name.
    let mut take = |name: &str| {
        let mut entry = known.remove(name).unwrap_or_default();
        if let Value::Object(entry) = &mut entry {
            entry.remove("x-other-names");
        }
        entry
    };
    let mut config = json!({ "instrumental": { "type": "boolean" } });
    for (name, field) in chat::CONFIG {
        config[name] = take(field);
    }
    let mut properties = json!({
        "model": { "type": "string" },
        "messages": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "role": { "type": "string", "enum": ["system", "user", "assistant"] },
                    "content": {
                        "type": ["string", "array"],
                        "description": "Text, or parts of the types text and input_audio",
                    },
                },
            },
        },
        "stream": { "type": "boolean", "default": false },
        "audio_config": { "type": "object", "properties": config },
        "max_tokens": { "type": "integer", "description": "Has no effect" },
        "seed": take("seed"),
        "lyrics": take("lyrics"),
    });
    for (name, field) in chat::SAMPLING {
        properties[name] = take(field);
    }
    for (name, low, high) in chat::RANGES {
        properties[name]["minimum"] = json!(low);
        if let Some(high) = high {
            properties[name]["maximum"] = json!(high);
        }
    }
    properties
}

/// The body of a route by content type.
fn request_body(route: Route) -> Option<Value> {
    let properties = properties(route)?;
    let object = |properties: &Value| {
        let mut schema = json!({ "type": "object", "properties": properties });
        if route == Route::ChatCompletions {
            schema["required"] = json!(["messages"]);
        }
        json!({ "schema": schema })
    };
    let mut content = json!({ "application/json": object(&properties) });
    if guard(route) == Guard::Body {
        content["application/x-www-form-urlencoded"] = object(&properties);
        let mut with_files = properties;
        if route == Route::ReleaseTask {
            for name in FILES {
                with_files[name] = json!({ "type": "string", "format": "binary" });
            }
        }
        content["multipart/form-data"] = object(&with_files);
    }
    let is_required = matches!(route, Route::Init | Route::ChatCompletions);
    Some(json!({ "required": is_required, "content": content }))
}

fn guard(route: Route) -> Guard {
    let row = ROUTES.iter().find(|row| row.route == route);
    row.map_or(Guard::Header, |row| row.guard)
}

/// The statuses of a route beside 200.
fn faults(row: &Row) -> Vec<(&'static str, &'static str)> {
    let mut faults = Vec::new();
    if row.guard != Guard::Open {
        faults.push(("401", "The key is missing or wrong"));
    }
    if row.method == Method::POST {
        faults.push(("400", "The request is no good; detail says why"));
        faults.push(("413", "The body is too large"));
        faults.push((
            "503",
            "The server is about to end, or too busy with large bodies",
        ));
    }
    faults.extend_from_slice(match row.route {
        Route::ReleaseTask => &[
            ("415", "The type of the body is not known"),
            ("429", "The queue is full"),
            ("507", "An upload could not be stored"),
        ],
        Route::ChatCompletions => &[
            ("429", "The queue is full"),
            ("500", "The song was not made; detail says why"),
            ("504", "The song was not made in time"),
        ],
        Route::FormatInput | Route::CreateSample => &[
            ("429", "Too many requests wait for the language model"),
            ("500", "The language model could not be loaded"),
        ],
        Route::Init | Route::Unload => &[("422", "A field is no good; detail lists them")],
        Route::Audio => &[
            ("206", "A part of the file"),
            ("403", "The path leads out of the folder of results"),
            ("404", "There is no such file"),
            ("416", "The part begins behind the end"),
            ("422", "path is missing"),
        ],
        Route::CancelTask | Route::Cleanup | Route::Events => &[("404", "There is no such job")],
        _ => &[],
    });
    faults
}

/// One operation.
fn operation(row: &Row) -> Value {
    let mut responses = json!({ "200": { "description": "Successful Response" } });
    for (status, why) in faults(row) {
        responses[status] = json!({ "description": why });
    }
    let mut operation = json!({ "summary": row.help, "responses": responses });
    if let Some(body) = request_body(row.route) {
        operation["requestBody"] = body;
    }
    let mut parameters = Vec::new();
    if row.path.contains("{task_id}") {
        parameters.push(json!({
            "name": "task_id", "in": "path", "required": true, "schema": { "type": "string" },
        }));
    }
    if row.route == Route::Audio {
        parameters.push(json!({
            "name": "path", "in": "query", "required": true, "schema": { "type": "string" },
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if row.guard != Guard::Open {
        operation["security"] = json!([{ "key": [] }]);
    }
    operation
}

/// The schema for programs.
pub fn schema() -> Reply {
    let mut paths = Map::new();
    for row in ROUTES {
        let method = row.method.as_str().to_lowercase();
        paths.insert(row.path.to_owned(), json!({ method: operation(row) }));
    }
    json(
        StatusCode::OK,
        &json!({
            "openapi": "3.1.0",
            "info": { "title": "ACE-Step API", "version": "1.0" },
            "paths": paths,
            "components": { "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } } },
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_table() {
        for field in FIELDS {
            match default_of(field) {
                Some(value) => {
                    let is_right = match field.kind {
                        Kind::Int => value.is_i64(),
                        Kind::Float => value.is_number(),
                        Kind::Bool => value.is_boolean(),
                        Kind::Text | Kind::Texts | Kind::Seed => value.is_string(),
                    };
                    assert!(is_right, "{}: {value}", field.name);
                }
                None => assert_eq!(field.default, "null", "{}", field.name),
            }
        }
    }

    #[test]
    fn chat_has_the_fields_that_it_reads() {
        let chat = chat();
        for (name, _) in chat::CONFIG {
            let entry = &chat["audio_config"]["properties"][name];
            assert!(entry["type"].is_string(), "{name}: {entry}");
        }
        for (name, ..) in chat::RANGES {
            assert!(chat[name]["type"].is_string() && chat[name]["minimum"].is_number());
        }
        assert_eq!(chat["temperature"]["default"], 0.85);
        assert_eq!(chat["top_p"]["maximum"], 1.0);
        assert!(chat["top_k"]["maximum"].is_null());
    }
}
