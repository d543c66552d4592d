//! What the routes that only ask the language model take: the values of a song request that
//! matter to it, decided by the same rules.

use super::{Caller, Echo, ModelFacts, lyrics, resolve};
use crate::coerce::{Bool, Coerce, Float};
use crate::fields::{RawRequest, Refusal};
use crate::raw::Sources;
use engine::sample::logits::TokenSampling;
use engine::song::{DescribeRequest, Facts, Subject, Wish};
use serde_json::{Map, Value};

/// Fields of a request body.
type Body = Map<String, Value>;

/// A description to ask for, and what the user said.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// For the engine.
    pub request: DescribeRequest,
    /// For the answer.
    pub echo: Echo,
}

/// Caption and lyrics are to be rewritten; metadata in the body or its `param_obj` is known.
pub fn format(body: Body, random: &mut dyn FnMut() -> u32) -> Result<Asked, Refusal> {
    let temperature = temperature(&body);
    let said = RawRequest::read(&Sources::new(body))?;
    let subject = Subject::Texts {
        caption: said.prompt(),
        lyrics: lyrics(&said.lyrics()),
    };
    ask(
        RawRequest {
            lm_temperature: temperature,
            prompt: said.prompt,
            lyrics: said.lyrics,
            bpm: said.bpm,
            audio_duration: said.audio_duration,
            key_scale: said.key_scale,
            time_signature: said.time_signature,
            vocal_language: said.vocal_language,
            ..RawRequest::default()
        },
        subject,
        random,
    )
}

/// A song is to be invented from `query`.
pub fn sample(body: Body, random: &mut dyn FnMut() -> u32) -> Result<Asked, Refusal> {
    let text = |name: &str| match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => String::coerce(value).map_err(|e| Refusal(format!("{name} {e}"))),
    };
    let instrumental = body.get("instrumental").map(Bool::coerce);
    let subject = Subject::Wish(Wish {
        query: text("query")?.unwrap_or_default().trim().to_owned(),
        instrumental: matches!(instrumental, Some(Ok(Some(true)))),
    });
    ask(
        RawRequest {
            lm_temperature: temperature(&body),
            sample_query: text("query")?,
            vocal_language: text("vocal_language")?,
            ..RawRequest::default()
        },
        subject,
        random,
    )
}

fn temperature(body: &Body) -> Option<f64> {
    Float::coerce(body.get("temperature")?).ok().flatten()
}

/// Decides the values of a song request of which only what the language model reads is said.
fn ask(
    raw: RawRequest,
    subject: Subject,
    random: &mut dyn FnMut() -> u32,
) -> Result<Asked, Refusal> {
    // The diffusion model has no part in it.
    let model = ModelFacts {
        name: String::new(),
        is_turbo: true,
    };
    let resolved = resolve(&raw, &model, Caller::Http, random)?;
    for note in &resolved.notes {
        tracing::debug!("{note}");
    }
    let song = resolved.song;
    let is_said = raw.vocal_language.is_some_and(|l| !l.trim().is_empty());
    let language = (is_said && song.language != "unknown").then_some(song.language);
    let temperature = song.planning.map_or(0.85, |p| p.sampling.temperature);
    Ok(Asked {
        request: DescribeRequest {
            subject,
            known: Facts {
                metas: song.metas,
                duration_s: song.duration_s,
                language,
            },
            // As upstream: the temperature alone.
            sampling: TokenSampling {
                temperature,
                top_k: 0,
                top_p: 0.0,
                repetition_penalty: 1.0,
                guidance: 1.0,
            },
            seed: song.seeds.first().copied().unwrap_or(0),
            constrained: true,
            debug: false,
        },
        echo: resolved.echo,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: Value) -> Body {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn metadata_comes_from_the_object_of_parameters() {
        for parameters in [
            json!({"bpm": "120", "duration": 30.5, "key": "C Major", "language": "de",
                   "time_signature": "3/4"}),
            json!(
                "{\"bpm\": 120, \"duration\": \"30.5\", \"key_scale\": \"C Major\", \
                   \"language\": \"de\", \"time_signature\": \"3/4\"}"
            ),
        ] {
            let body = body(json!({"prompt": "p", "temperature": "0", "param_obj": parameters}));
            let asked = format(body, &mut || 7).unwrap();
            let known = asked.request.known;
            assert_eq!((known.metas.bpm, known.duration_s), (Some(120), Some(30.5)));
            assert_eq!(known.metas.key_scale.as_deref(), Some("C Major"));
            assert_eq!(known.metas.time_signature.as_deref(), Some("3"));
            assert_eq!(known.language.as_deref(), Some("de"));
            assert_eq!(asked.request.sampling.temperature, 0.0);
            assert_eq!(asked.echo.time_signature, "3/4");
        }
    }

    #[test]
    fn what_says_nothing_is_not_known() {
        for parameters in [
            json!({"bpm": 0, "duration": -1, "key": "", "language": "unknown"}),
            json!({"bpm": "x", "duration": "", "language": "  "}),
            json!("no json"),
            json!([1]),
            json!(null),
        ] {
            let body = body(json!({"param_obj": parameters}));
            let request = format(body, &mut || 7).unwrap().request;
            assert_eq!(request.known, Facts::default(), "{parameters}");
            assert_eq!(request.sampling.temperature, 0.85);
        }
    }

    #[test]
    fn wishes_are_read_leniently() {
        for (instrumental, expected) in [
            (json!(true), true),
            (json!("Yes"), true),
            (json!("1"), true),
            (json!("no"), false),
            (json!([]), false),
            (json!(null), false),
        ] {
            let body = body(json!({
                "query": " a song ", "instrumental": instrumental, "vocal_language": "JA",
                "temperature": 9,
            }));
            let request = sample(body, &mut || 7).unwrap().request;
            let wish = Wish {
                query: "a song".into(),
                instrumental: expected,
            };
            assert_eq!(request.subject, Subject::Wish(wish));
            assert_eq!(request.known.language.as_deref(), Some("ja"));
            assert_eq!(request.sampling.temperature, 2.0);
        }
        let unknown = sample(body(json!({"query": 5})), &mut || 7)
            .unwrap()
            .request;
        assert_eq!(unknown.known, Facts::default());
        let long = body(json!({"query": "x".repeat(100_001)}));
        assert!(sample(long, &mut || 7).is_err_and(|r| r.0.contains("sample_query")));
    }
}
