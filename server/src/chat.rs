//! Chat messages as requests for songs (upstream `acestep/openrouter_adapter.py`): what a client
//! of OpenRouter's chat completions sends becomes fields of the field table.

use crate::body::Fields;
use crate::coerce::{Bool, Coerce, Text};
use crate::fields::{FIELDS, RawRequest, names};
use crate::raw::Sources;
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose};
use engine::song::Task;
use engine::song::task::SourceUse;
use serde_json::{Value, json};

/// Fields of `audio_config`, and those of the field table that they are.
pub const CONFIG: [(&str, &str); 6] = [
    ("duration", "audio_duration"),
    ("format", "audio_format"),
    ("bpm", "bpm"),
    ("key_scale", "key_scale"),
    ("time_signature", "time_signature"),
    ("vocal_language", "vocal_language"),
];

/// Fields of OpenRouter's that control sampling, and those of the field table that they are.
pub const SAMPLING: [(&str, &str); 3] = [
    ("temperature", "lm_temperature"),
    ("top_p", "lm_top_p"),
    ("top_k", "lm_top_k"),
];

/// The ranges that OpenRouter's contract fixes.
pub const RANGES: [(&str, f64, Option<f64>); 4] = [
    ("temperature", 0.0, Some(2.0)),
    ("top_p", 0.0, Some(1.0)),
    ("top_k", 0.0, None),
    ("max_tokens", 1.0, None),
];

/// What a chat request asks for.
#[derive(Debug)]
pub struct Chat {
    /// The request as fields.
    pub raw: RawRequest,
    /// The model as it was named, if it was.
    pub model: Option<String>,
    /// Whether the answer comes piece by piece.
    pub stream: bool,
    /// A recording to work on.
    pub source: Option<Recording>,
    /// A recording to sound like.
    pub reference: Option<Recording>,
}

/// A recording within a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// The file.
    pub bytes: Vec<u8>,
    /// Ending of the name that it would have.
    pub format: String,
}

/// Reads a request. `Err` is the sentence for the client.
pub fn read(body: Fields) -> Result<Chat, String> {
    let invalid = |why: &str| format!("Invalid request format: {why}");
    let message = last_user_message(&body).map_err(|why| invalid(&why))?;
    check_ranges(&body).map_err(|why| invalid(&why))?;
    let switch = |name: &str| {
        let value = body.get(name).filter(|v| !v.is_null());
        value
            .and_then(|v| Bool::coerce(v).ok().flatten())
            .unwrap_or(false)
    };
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    let Message { text: said, audio } = message;
    let (prompt, lyrics) = split(&said);
    let mut fields = known_fields(&body);
    let config = match body.get("audio_config") {
        Some(Value::Object(config)) => config.clone(),
        None | Some(Value::Null) => Fields::new(),
        Some(_) => return Err(invalid("audio_config must be an object")),
    };
    map_config(&config, &mut fields);
    map_sampling(&body, &mut fields);
    let own_lyrics = text("lyrics").filter(|own| !own.trim().is_empty());
    let lyrics = own_lyrics.unwrap_or(lyrics);
    let is_instrumental = config
        .get("instrumental")
        .is_some_and(|v| Bool::coerce(v).ok().flatten() == Some(true));
    let has_query = fields.get("sample_query").is_some_and(is_said);
    let has_codes = fields.get("audio_code_string").is_some_and(is_said);
    if prompt.is_empty() && lyrics.is_empty() && !has_query && audio.is_empty() && !has_codes {
        return Err(
            "No valid prompt, lyrics, sample query, or input audio found in request".into(),
        );
    }
    match switch("sample_mode") && !prompt.is_empty() {
        true => fields.insert("sample_query".into(), json!(prompt)),
        false => fields.insert("prompt".into(), json!(prompt)),
    };
    let lyrics = match lyrics.as_str() {
        "" if is_instrumental => "[inst]".to_owned(),
        _ => lyrics,
    };
    fields.insert("lyrics".into(), json!(lyrics));
    let model = text("model").filter(|name| !name.trim().is_empty());
    if let Some(model) = &model {
        let name = model
            .split_once('/')
            .map_or(model.as_str(), |(_, name)| name);
        fields.insert("model".into(), json!(name));
    }
    let raw = RawRequest::read(&Sources::new(fields)).map_err(|refusal| invalid(&refusal.0))?;
    let mut audio = audio.into_iter();
    let task = raw.task_type().parse::<Task>();
    let has_source = task.is_ok_and(|task| task.row().source != SourceUse::Nothing);
    let source = has_source.then(|| audio.next()).flatten();
    Ok(Chat {
        raw,
        model,
        stream: switch("stream"),
        source,
        reference: audio.next(),
    })
}

fn is_said(value: &Value) -> bool {
    !crate::raw::is_empty(value)
}

/// Fields of the table that stand in the body under any of their names. Chat has defaults of its
/// own for some.
fn known_fields(body: &Fields) -> Fields {
    let mut fields = Fields::new();
    fields.insert("batch_size".into(), json!(1));
    fields.insert("lm_cfg_scale".into(), json!(2.0));
    for (index, field) in FIELDS.iter().enumerate() {
        // The key comes with the header, texts with the messages.
        if ["ai_token", "prompt", "lyrics", "model"].contains(&field.name) {
            continue;
        }
        let value = names(index).iter().find_map(|name| body.get(name.as_str()));
        if let Some(value) = value.filter(|v| !v.is_null()) {
            fields.insert(field.name.to_owned(), value.clone());
        }
    }
    // A seed that is sent is meant.
    if fields.contains_key("seed") {
        fields.insert("use_random_seed".into(), json!(false));
    }
    fields
}

/// `audio_config` beats what stands beside it.
fn map_config(config: &Fields, fields: &mut Fields) {
    for (name, field) in CONFIG {
        if let Some(value) = config.get(name).filter(|v| is_said(v)) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
}

fn map_sampling(body: &Fields, fields: &mut Fields) {
    for (name, field) in SAMPLING {
        if let Some(value) = body.get(name).filter(|v| !v.is_null()) {
            fields.insert(field.to_owned(), value.clone());
        }
    }
}

/// Refuses what lies outside of [`RANGES`].
fn check_ranges(body: &Fields) -> Result<(), String> {
    for (name, low, high) in RANGES {
        let Some(value) = body.get(name).filter(|v| !v.is_null()) else {
            continue;
        };
        let number = f64::coerce(value).ok().flatten();
        let is_within = |n: f64| n >= low && high.is_none_or(|high| n <= high);
        if !number.is_some_and(is_within) {
            return Err(match high {
                None => format!("{name} must be a number of at least {low}"),
                Some(high) => format!("{name} must be a number between {low} and {high}"),
            });
        }
    }
    Ok(())
}

/// The parts of a message.
#[derive(Debug, Default)]
struct Message {
    text: String,
    audio: Vec<Recording>,
}

/// The last message of a user that has content.
fn last_user_message(body: &Fields) -> Result<Message, String> {
    let messages = match body.get("messages") {
        Some(Value::Array(messages)) => messages,
        Some(_) => return Err("messages must be a list".into()),
        None => return Err("messages is missing".into()),
    };
    for message in messages.iter().rev() {
        let Value::Object(message) = message else {
            return Err("every message must be an object".into());
        };
        if message.get("role").and_then(Value::as_str) != Some("user") {
            continue;
        }
        match message.get("content") {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) => {
                return Ok(Message {
                    text: text.trim().to_owned(),
                    audio: Vec::new(),
                });
            }
            Some(Value::Array(parts)) if parts.is_empty() => {}
            Some(Value::Array(parts)) => return parts_of(parts),
            Some(_) => return Err("content must be a text or a list of parts".into()),
        }
    }
    Ok(Message::default())
}

fn parts_of(parts: &[Value]) -> Result<Message, String> {
    let mut texts = Vec::new();
    let mut audio = Vec::new();
    for part in parts {
        match part["type"].as_str() {
            Some("text") => texts.push(part["text"].as_str().unwrap_or_default().trim()),
            Some("input_audio") => {
                let input = &part["input_audio"];
                let data = input["data"].as_str().unwrap_or_default();
                let format = input["format"].as_str().unwrap_or("mp3");
                if !data.trim().is_empty() {
                    audio.push(recording(data, format)?);
                }
            }
            _ => {}
        }
    }
    Ok(Message {
        text: texts.join("\n").trim().to_owned(),
        audio,
    })
}

/// A recording in base64, or as a data URL, of which what stands before the first comma is left
/// out.
fn recording(data: &str, format: &str) -> Result<Recording, String> {
    let data = data.split_once(',').map_or(data, |(_, data)| data);
    let packed: Vec<u8> = data.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&base64::alphabet::STANDARD, lenient)
        .decode(&packed)
        .map_err(|e| format!("input_audio.data is not base64 ({e})"))?;
    Ok(Recording {
        bytes,
        format: format.trim_start_matches('.').to_owned(),
    })
}

/// A file as a data URL.
pub fn data_url(bytes: &[u8], format: &str) -> String {
    let media_type = match format.trim().to_lowercase().as_str() {
        "wav" | "wav32" => "audio/wav",
        "flac" => "audio/flac",
        "ogg" | "opus" => "audio/ogg",
        "m4a" => "audio/mp4",
        "aac" => "audio/aac",
        _ => "audio/mpeg",
    };
    let mut url = format!("data:{media_type};base64,");
    general_purpose::STANDARD.encode_string(bytes, &mut url);
    url
}

/// Prompt and lyrics of a message: by their tags, else by what it looks like.
fn split(text: &str) -> (String, String) {
    let (prompt, rest) = take_tag(text, "prompt");
    let (lyrics, rest) = take_tag(&rest, "lyrics");
    if prompt.is_none() && lyrics.is_none() {
        return match looks_like_lyrics(text) {
            true => (String::new(), text.to_owned()),
            false => (text.to_owned(), String::new()),
        };
    }
    let prompt = prompt.filter(|p| !p.is_empty());
    (
        prompt.unwrap_or_else(|| rest.trim().to_owned()),
        lyrics.unwrap_or_default(),
    )
}

/// What stands between the first pair of a tag, in any case, and the text without it.
fn take_tag(text: &str, tag: &str) -> (Option<String>, String) {
    // Keeps the places of bytes.
    let folded = text.to_ascii_lowercase();
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let found = folded.find(&open).and_then(|start| {
        let inner = start + open.len();
        let end = inner + folded[inner..].find(&close)?;
        Some((start, inner, end))
    });
    match found {
        None => (None, text.to_owned()),
        Some((start, inner, end)) => (
            Some(text[inner..end].trim().to_owned()),
            format!("{}{}", &text[..start], &text[end + close.len()..]),
        ),
    }
}

fn looks_like_lyrics(text: &str) -> bool {
    const MARKS: [&str; 9] = [
        "[verse",
        "[chorus",
        "[bridge",
        "[intro",
        "[outro",
        "[hook",
        "[pre-chorus",
        "[refrain",
        "[inst",
    ];
    let folded = text.to_lowercase();
    if MARKS.iter().any(|mark| folded.contains(mark)) {
        return true;
    }
    let lines: Vec<usize> = text
        .lines()
        .map(|line| line.trim().chars().count())
        .filter(|length| *length > 0)
        .collect();
    lines.len() >= 4 && lines.iter().sum::<usize>() < 60 * lines.len()
}

/// The answer's text: what is known of a song, one item of a result, and its lyrics.
pub fn content(item: &Value) -> String {
    let metas = &item["metas"];
    let known = |value: &Value| {
        let text = Text::coerce(value).ok().flatten().unwrap_or_default();
        (!value.is_null() && !text.is_empty() && text != "N/A").then_some(text)
    };
    let caption = known(&metas["caption"])
        .or_else(|| known(&item["prompt"]))
        .or_else(|| known(&metas["prompt"]));
    let lines: Vec<String> = [
        ("Caption", caption, ""),
        ("BPM", known(&metas["bpm"]), ""),
        ("Duration", known(&metas["duration"]), "s"),
        ("Key", known(&metas["keyscale"]), ""),
        ("Time Signature", known(&metas["timesignature"]), ""),
    ]
    .into_iter()
    .filter_map(|(name, value, unit)| Some(format!("**{name}:** {}{unit}", value?)))
    .collect();
    let mut parts = Vec::new();
    if !lines.is_empty() {
        parts.push(format!("## Metadata\n{}", lines.join("\n")));
    }
    let lyrics = item["lyrics"].as_str().unwrap_or_default();
    if !engine::text::prompt::is_instrumental(lyrics) {
        parts.push(format!("## Lyrics\n{lyrics}"));
    }
    match parts.is_empty() {
        true => "Music generated successfully.".into(),
        false => parts.join("\n\n"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn chat(body: Value) -> Result<Chat, String> {
        read(body.as_object().unwrap().clone())
    }

    fn said(content: &str) -> (String, String) {
        let raw = chat(json!({"messages": [{"role": "user", "content": content}]}))
            .unwrap()
            .raw;
        (raw.prompt(), raw.lyrics())
    }

    #[test]
    fn texts_of_a_message() {
        for (content, prompt, lyrics) in [
            ("a waltz", "a waltz", ""),
            ("[Verse 1]\nla", "", "[Verse 1]\nla"),
            ("one\ntwo\n\nthree\nfour", "", "one\ntwo\n\nthree\nfour"),
            ("one\ntwo\nthree", "one\ntwo\nthree", ""),
            ("<prompt> a </prompt><LYRICS>b\nc</LYRICS>", "a", "b\nc"),
            ("İ pop <lyrics>b</lyrics>", "İ pop", "b"),
            ("x <prompt>a</prompt> y", "a", ""),
            ("<lyrics>not closed", "<lyrics>not closed", ""),
        ] {
            assert_eq!(said(content), (prompt.into(), lyrics.into()), "{content}");
        }
    }

    #[test]
    fn the_last_user_message_counts() {
        let chat = chat(json!({"model": "acestep/acestep-v15-base", "stream": "true", "messages": [
            {"role": "user", "content": "first"},
            {"role": "user", "content": [
                {"type": "text", "text": "second"}, {"type": "image"},
                {"type": "text", "text": "line"},
                {"type": "input_audio", "input_audio": {"data": "data:audio/wav;base64,AAEC", "format": "wav"}},
            ]},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": "third"},
        ]}))
        .unwrap();
        assert_eq!(chat.raw.prompt(), "second\nline");
        assert_eq!(chat.raw.model(), Some("acestep-v15-base".into()));
        assert!(chat.stream && chat.source.is_none());
        let reference = Recording {
            bytes: vec![0, 1, 2],
            format: "wav".into(),
        };
        assert_eq!(chat.reference, Some(reference));
    }

    #[test]
    fn fields_and_defaults() {
        let message = json!([{"role": "user", "content": "x"}]);
        let raw = chat(json!({ "messages": message })).unwrap().raw;
        assert_eq!((raw.batch_size(), raw.lm_cfg_scale()), (1, 2.0));
        assert_eq!((raw.seed, raw.use_random_seed), (None, None));
        let raw = chat(json!({
            "messages": message, "seed": 7, "temperature": 0.5, "top_p": 0.8, "top_k": 3,
            "thinking": true, "batch_size": 2, "audio_codes": "<|audio_code_1|>",
            "cover_noise_strength": 0.25, "use_cot_metas": false, "audio_duration": 99,
            "ai_token": "secret",
            "audio_config": {"duration": 20, "format": "wav", "bpm": 90, "instrumental": true},
        }))
        .unwrap()
        .raw;
        assert_eq!(raw.use_random_seed, Some(false));
        assert_eq!(
            (raw.lm_temperature(), raw.lm_top_p(), raw.lm_top_k()),
            (0.5, 0.8, Some(3))
        );
        assert_eq!((raw.audio_duration(), raw.bpm()), (Some(20.0), Some(90)));
        assert_eq!(
            (raw.audio_format(), raw.lyrics()),
            ("wav".into(), "[inst]".into())
        );
        assert_eq!(
            (raw.cover_noise_strength(), raw.use_cot_metas()),
            (0.25, false)
        );
        assert!(raw.audio_code_string.is_some() && raw.ai_token.is_none());
        let raw = chat(json!({"messages": message, "sample_mode": true}))
            .unwrap()
            .raw;
        assert_eq!(
            (raw.sample_query(), raw.prompt()),
            ("x".into(), String::new())
        );
    }

    #[test]
    fn recordings_go_where_the_task_needs_them() {
        let part = |data: &str| json!({"type": "input_audio", "input_audio": {"data": data}});
        let ask = |task: &str| {
            let content = json!([part("AA=="), part("AQ")]);
            let messages = json!([{"role": "user", "content": content}]);
            let chat = chat(json!({ "messages": messages, "task_type": task })).unwrap();
            let bytes = |r: Option<Recording>| r.map(|r| r.bytes);
            (bytes(chat.source), bytes(chat.reference))
        };
        assert_eq!(ask("cover"), (Some(vec![0]), Some(vec![1])));
        assert_eq!(ask("text2music"), (None, Some(vec![0])));
    }

    #[test]
    fn what_is_refused() {
        let message = json!([{"role": "user", "content": "x"}]);
        for (body, part) in [
            (json!({}), "messages is missing"),
            (json!({"messages": "x"}), "messages must be a list"),
            (json!({"messages": [1]}), "every message"),
            (
                json!({"messages": [{"role": "user", "content": 1}]}),
                "content must",
            ),
            (
                json!({"messages": message, "temperature": 3}),
                "temperature",
            ),
            (json!({"messages": message, "top_k": -1}), "top_k"),
            (json!({"messages": message, "max_tokens": 0}), "max_tokens"),
            (
                json!({"messages": message, "audio_config": 1}),
                "audio_config",
            ),
            (json!({"messages": message, "seed": 1.5}), "seed"),
            (
                json!({"messages": [{"role": "user", "content": [
                    {"type": "input_audio", "input_audio": {"data": "***"}},
                ]}]}),
                "not base64",
            ),
        ] {
            let why = chat(body).unwrap_err();
            assert!(
                why.starts_with("Invalid request format: ") && why.contains(part),
                "{why}"
            );
        }
        for messages in [json!([]), json!([{"role": "system", "content": "x"}])] {
            let why = chat(json!({ "messages": messages })).unwrap_err();
            assert!(why.starts_with("No valid prompt"), "{why}");
        }
    }

    #[test]
    fn answers_in_words() {
        let item = json!({"prompt": "pop", "lyrics": "[Verse]\nla", "metas": {
            "bpm": 120, "duration": 30.0, "keyscale": "C Major", "timesignature": "4", "genres": "N/A",
        }});
        assert_eq!(
            content(&item),
            "## Metadata\n**Caption:** pop\n**BPM:** 120\n**Duration:** 30.0s\n**Key:** C \
             Major\n**Time Signature:** 4\n\n## Lyrics\n[Verse]\nla"
        );
        let item = json!({"prompt": "", "lyrics": "[Instrumental]", "metas": {"bpm": "N/A"}});
        assert_eq!(content(&item), "Music generated successfully.");
    }
}
