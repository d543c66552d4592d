//! What the language model does for a request, row by row of upstream's decision table: which
//! phases run, what reaches the music, what stays the user's own.

use engine::sample::logits::TokenSampling;
use engine::song::{
    Composed, DescribeRequest, Engine, Facts, Metas, NoWatch, Planning, Recording, SongRequest,
    Stage, StageTimes, Subject, Task, Watch, Wish,
};
use engine::text::{LANGUAGES, prompt};
use engine::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tests::engines::{on_processor, tiny};
use tests::requests::plain_sampling;

fn engine() -> Engine {
    on_processor(&tiny()).expect("the tiny tree opens")
}

fn planner() -> Engine {
    let mut engine = engine();
    engine.load_lm(None, &NoWatch).expect("a language model");
    engine
}

/// What the HTTP interface asks for when a client says nothing.
fn planning() -> Planning {
    Planning {
        wish: None,
        format: false,
        metadata: true,
        caption: true,
        language: true,
        keep_language: false,
        codes: false,
        negative: prompt_default(),
        sampling: TokenSampling::default(),
        batch: true,
        constrained: true,
        debug: false,
    }
}

fn prompt_default() -> String {
    engine::text::lm_prompt::NO_USER_INPUT.into()
}

fn request(planning: Planning) -> SongRequest {
    SongRequest {
        caption: "upbeat pop".into(),
        lyrics: "[Verse]\nla la".into(),
        language: "en".into(),
        duration_s: Some(10.0),
        planning: Some(planning),
        ..SongRequest::new("acestep-v15-turbo", vec![5], plain_sampling(1))
    }
}

fn complete() -> Metas {
    Metas {
        bpm: Some(97),
        key_scale: Some("H minor".into()),
        time_signature: Some("6".into()),
    }
}

/// Remembers which stages ran.
#[derive(Default)]
struct Seen(RefCell<Vec<Stage>>);

impl Watch for Seen {
    fn progress(&self, stage: Stage, _: usize, _: usize) {
        let mut seen = self.0.borrow_mut();
        if seen.last() != Some(&stage) {
            seen.push(stage);
        }
    }

    fn cancelled(&self) -> bool {
        false
    }
}

/// Stops what has begun.
#[derive(Default)]
struct Begun(Cell<bool>);

impl Watch for Begun {
    fn progress(&self, _: Stage, _: usize, _: usize) {
        self.0.set(true);
    }

    fn cancelled(&self) -> bool {
        self.0.get()
    }
}

fn compose(engine: &Engine, request: &SongRequest) -> (Composed, Vec<Stage>) {
    let (seen, mut times) = (Seen::default(), StageTimes::default());
    let composed = engine
        .compose(request, &mut times, &seen)
        .expect("composed");
    (composed, seen.0.into_inner())
}

fn assert_legal(request: &SongRequest) {
    let Metas {
        bpm,
        key_scale,
        time_signature,
    } = &request.metas;
    assert!((30..=300).contains(&bpm.expect("beats")), "{bpm:?}");
    let key = key_scale.as_deref().expect("a key");
    assert!(engine::text::grammar::is_key(key), "{key}");
    let beats = time_signature.as_deref().expect("a time signature");
    assert!(["2", "3", "4", "6"].contains(&beats), "{beats}");
    let seconds = request.duration_s.expect("a duration");
    assert!((10.0..=600.0).contains(&seconds), "{seconds}");
    assert!(LANGUAGES.contains(&request.language.as_str()));
}

#[test]
fn which_phases_run() {
    let engine = planner();
    let (reason, codes) = (Stage::Reason, Stage::Codes);
    let metas = [Metas::default(), complete()];
    let given: [Vec<Vec<u32>>; 2] = [Vec::new(), vec![vec![1, 2, 3]]];
    // thinking, codes given, complete, sample mode: what runs.
    let rows: [(bool, bool, bool, bool, &[Stage]); 10] = [
        (false, false, true, false, &[]),
        (false, false, false, false, &[reason]),
        (false, true, true, false, &[]),
        (false, true, false, false, &[reason]),
        (true, false, true, false, &[codes]),
        (true, false, false, false, &[reason, codes]),
        (true, false, false, true, &[codes]),
        (true, true, false, false, &[reason]),
        (true, true, true, false, &[]),
        (false, false, false, true, &[]),
    ];
    for (thinking, has_codes, is_complete, sample_mode, runs) in rows {
        let request = SongRequest {
            metas: metas[usize::from(is_complete)].clone(),
            codes: given[usize::from(has_codes)].clone(),
            ..request(Planning {
                codes: thinking,
                metadata: !sample_mode,
                ..planning()
            })
        };
        let row = (thinking, has_codes, is_complete, sample_mode);
        let (composed, seen) = compose(&engine, &request);
        assert_eq!(seen, runs, "{row:?}");
        let made = composed.request;
        match (has_codes, thinking) {
            (true, _) => assert_eq!(made.codes, given[1], "{row:?}"),
            (false, true) => assert_eq!(made.codes[0].len(), 50, "{row:?}"),
            (false, false) => assert!(made.codes.is_empty(), "{row:?}"),
        }
        if is_complete {
            assert_eq!(made.metas, complete(), "{row:?}");
            assert_eq!(made.caption, "upbeat pop", "{row:?}");
        } else if runs.contains(&reason) {
            assert_legal(&made);
        }
        assert_eq!((made.duration_s, made.lyrics), (Some(10.0), request.lyrics));
        assert_eq!(made.planning, None);
    }
}

#[test]
fn caption_and_language_follow_their_flags() {
    let engine = planner();
    for (caption, language, keep) in [
        (true, true, false),
        (false, true, false),
        (true, false, false),
        (true, true, true),
    ] {
        let mut request = request(Planning {
            caption,
            language,
            keep_language: keep,
            ..planning()
        });
        request.language = "ja".into();
        let made = compose(&engine, &request).0.request;
        assert_eq!(made.caption != request.caption, caption);
        if keep || !language {
            assert_eq!(made.language, "ja");
        }
        assert_legal(&made);
    }
    // Whose language nobody said is the model's to name.
    let named = (0..8).map(|seed| {
        let mut request = request(planning());
        request.seeds = vec![seed];
        compose(&engine, &request).0.request.language
    });
    assert!(named.into_iter().any(|language| language != "en"));
}

#[test]
fn wishes_become_songs_and_keep_what_the_user_said() {
    let engine = planner();
    let wish = |instrumental| {
        let wish = Some(Wish {
            query: "a quiet evening".into(),
            instrumental,
        });
        request(Planning {
            wish,
            metadata: false,
            ..planning()
        })
    };
    let mut sung = wish(false);
    sung.metas.bpm = Some(123);
    sung.planning.as_mut().expect("planned").keep_language = true;
    sung.language = "bn".into();
    let made = compose(&engine, &sung).0.request;
    assert_legal(&made);
    assert_eq!(made.metas.bpm, Some(123));
    assert_eq!(
        (made.duration_s, made.language.as_str()),
        (Some(10.0), "bn")
    );
    assert_ne!((&made.caption, &made.lyrics), (&sung.caption, &sung.lyrics));
    // Without a voice the model's section marks remain.
    let composed = compose(&engine, &wish(true)).0;
    assert_ne!(composed.request.lyrics, prompt::INSTRUMENTAL);
    assert_ne!(composed.request.lyrics, sung.lyrics);
    // Random weights do not end by themselves.
    let note = "the language model's lyrics were cut off after 3500 tokens";
    assert_eq!(composed.notes, [note]);
    // The seed decides, nothing else.
    assert_eq!(compose(&engine, &sung).0.request, made);
    sung.seeds = vec![6];
    assert_ne!(compose(&engine, &sung).0.request.caption, made.caption);
}

#[test]
fn texts_are_rewritten_where_there_are_any() {
    let engine = planner();
    let format = Planning {
        format: true,
        metadata: false,
        ..planning()
    };
    let mut texts = request(format);
    texts.metas.key_scale = Some("D minor".into());
    let made = compose(&engine, &texts).0.request;
    assert_ne!(made.caption, texts.caption);
    assert_legal(&made);
    assert_eq!(made.metas.key_scale.as_deref(), Some("D minor"));
    let blank = SongRequest {
        caption: " ".into(),
        lyrics: prompt::INSTRUMENTAL.into(),
        ..texts
    };
    for lyrics in [prompt::INSTRUMENTAL, "", "\n"] {
        let blank = SongRequest {
            lyrics: lyrics.into(),
            ..blank.clone()
        };
        let (composed, seen) = compose(&engine, &blank);
        assert_eq!((composed.request.caption.as_str(), seen.len()), (" ", 0));
        assert!(!composed.planned);
    }
}

#[test]
fn texts_too_long_for_the_model_are_made_without_it_where_possible() {
    let engine = planner();
    let long = "la ".repeat(9000);
    let with = |planning: Planning| SongRequest {
        lyrics: long.clone(),
        ..request(planning)
    };
    let format = Planning {
        format: true,
        ..planning()
    };
    let whats = [
        "the texts were not rewritten: ",
        "the metadata was not completed: ",
    ];
    for (planning, whats) in [(format, &whats[..]), (planning(), &whats[1..])] {
        let request = with(planning);
        let (composed, seen) = compose(&engine, &request);
        assert!(seen.is_empty() && !composed.planned);
        assert_eq!(composed.notes.len(), whats.len());
        for (note, what) in composed.notes.iter().zip(whats) {
            assert!(
                note.starts_with(what) && note.contains("at most 8192"),
                "{note}"
            );
        }
        let unchanged = SongRequest {
            planning: None,
            ..request
        };
        assert_eq!(composed.request, unchanged);
    }
    let fails = |request: &SongRequest| {
        let failed = engine.compose(request, &mut StageTimes::default(), &NoWatch);
        match failed {
            Err(Error::Request(text)) => text,
            other => panic!("{other:?}"),
        }
    };
    for complete_metas in [false, true] {
        let mut thinking = with(Planning {
            codes: true,
            ..planning()
        });
        if complete_metas {
            thinking.metas = complete();
        }
        let text = fails(&thinking);
        assert!(
            text.starts_with("LM generation failed: the language model"),
            "{text}"
        );
    }
    let wish = Some(Wish {
        query: long.clone(),
        instrumental: false,
    });
    let text = fails(&request(Planning { wish, ..planning() }));
    assert!(
        text.starts_with("create_sample failed: the language model"),
        "{text}"
    );
}

#[test]
fn codes_say_how_long_a_song_is_when_nobody_does() {
    let engine = planner();
    let mut given = request(planning());
    given.duration_s = None;
    given.codes = vec![vec![1; 52]];
    let composed = compose(&engine, &given).0;
    assert_eq!(composed.request.duration_s, Some(10.4));
    assert!(composed.planned);
    // Neither given nor asked for: as long as the codes that are written.
    let mut nobody = request(Planning {
        codes: true,
        metadata: false,
        ..planning()
    });
    nobody.duration_s = None;
    let made = compose(&engine, &nobody).0.request;
    assert_eq!((made.duration_s, made.codes[0].len()), (Some(120.0), 600));
}

#[test]
fn the_language_is_the_models_only_where_it_was_asked() {
    let engine = planner();
    for (language, seeds) in [(false, 0..1), (true, 0..6)] {
        let changed = seeds.into_iter().any(|seed| {
            let mut request = request(Planning {
                format: true,
                metadata: false,
                language,
                ..planning()
            });
            request.language = "unknown".into();
            request.seeds = vec![seed];
            compose(&engine, &request).0.request.language != "unknown"
        });
        assert_eq!(changed, language);
    }
}

#[test]
fn without_a_language_model_only_what_is_required_fails() {
    let mut engine = engine();
    assert_eq!(engine.lm(), None);
    let (composed, seen) = compose(&engine, &request(planning()));
    assert!(!composed.planned && seen.is_empty());
    let thinking = request(Planning {
        codes: true,
        ..planning()
    });
    let failed = engine.compose(&thinking, &mut StageTimes::default(), &NoWatch);
    assert!(matches!(failed, Err(Error::Missing(_))), "{failed:?}");
    let failed = engine.load_lm(Some("acestep-5Hz-lm-9B"), &NoWatch);
    assert!(failed.is_err_and(|e| e.to_string().contains("acestep-5Hz-lm-9B")));
    engine
        .load_lm(Some("acestep-5Hz-lm-0.6B"), &NoWatch)
        .expect("it is there");
    // One that cannot be loaded leaves the one before.
    assert!(engine.load_lm(Some("none"), &NoWatch).is_err());
    assert_eq!(engine.lm(), Some("acestep-5Hz-lm-0.6B"));
}

#[test]
fn planned_codes_make_the_song() {
    let mut engine = planner();
    let mut thinking = request(Planning {
        codes: true,
        ..planning()
    });
    thinking.seeds = vec![5, 6];
    let song = engine.make(&thinking, &NoWatch).expect("a song");
    let made = &song.composed.request;
    assert_eq!(
        made.codes.iter().map(Vec::len).collect::<Vec<_>>(),
        [50, 50]
    );
    assert_eq!(song.frames, 250);
    assert!(song.times.reason_s > 0.0 && song.times.codes_s > 0.0);
    // The same codes given by the user make the same song, without a language model.
    let given = SongRequest {
        planning: None,
        ..made.clone()
    };
    let again = engine.make(&given, &NoWatch).expect("a song");
    assert_eq!(again.items, song.items);
    // And they matter, as does how long they are followed.
    let plain = SongRequest {
        codes: Vec::new(),
        ..given.clone()
    };
    assert_ne!(
        engine.make(&plain, &NoWatch).expect("a song").items,
        song.items
    );
    let half = |cover_strength| {
        let mut half = given.clone();
        half.cover_strength = cover_strength;
        half.sampling.steps = 4;
        engine.make(&half, &NoWatch).expect("a song").items
    };
    let [all, some] = [1.0, 0.5].map(half);
    assert_ne!(all, some);
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let mut engine = engine();
    let mut make = |codes: Vec<Vec<u32>>, seeds: &[u64]| -> Result<usize> {
        let request = SongRequest {
            codes,
            seeds: seeds.to_vec(),
            planning: None,
            ..request(planning())
        };
        engine.make(&request, &NoWatch).map(|song| song.frames)
    };
    for (codes, seeds, named) in [
        (vec![vec![64_000]], &[1][..], "audio code 64000"),
        (vec![vec![1], vec![2]], &[1, 2, 3], "2 lists"),
        (vec![vec![1], vec![]], &[1, 2], "song 2"),
    ] {
        match make(codes, seeds) {
            Err(Error::Request(text)) => assert!(text.contains(named), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    // Lists of different lengths are filled up to the longest.
    assert_eq!(make(vec![vec![3; 30], vec![4; 40]], &[1, 2]), Ok(200));
    assert_eq!(make(vec![vec![3; 2]], &[1]), Ok(128));
}

#[test]
fn music_as_codes_is_described() {
    let engine = planner();
    let known = Facts {
        metas: Metas {
            bpm: Some(88),
            ..Metas::default()
        },
        ..Facts::default()
    };
    let request = |codes: &[u32], seed| DescribeRequest {
        subject: Subject::Codes(codes.to_vec()),
        known: known.clone(),
        sampling: TokenSampling {
            temperature: 0.3,
            ..TokenSampling::default()
        },
        seed,
        constrained: true,
        debug: true,
    };
    let one = engine
        .describe(&request(&[1, 2, 3], 1), &NoWatch)
        .expect("described");
    assert!(one.caption.is_some() && one.facts.is_complete());
    assert_eq!(one.facts.metas.bpm, Some(88));
    assert!(!one.events.is_empty());
    let other = engine
        .describe(&request(&[7, 70, 700], 1), &NoWatch)
        .expect("described");
    assert_ne!(one, other);
    let unknown = engine.describe(&request(&[2048], 1), &NoWatch);
    assert!(unknown.is_err_and(|e| e.to_string().contains("2048")));
    // Ten minutes are not too long.
    let long = engine.describe(&request(&[5; 3000], 1), &Begun::default());
    assert_eq!(long, Err(Error::Cancelled));
    let longer = engine.describe(&request(&[5; 8200], 1), &NoWatch);
    assert!(longer.is_err_and(|e| e.to_string().contains("at most 8192")));
}

/// A recording is worked on, not dropped for codes that would take its place.
#[test]
fn tasks_on_a_recording_are_planned_without_codes() {
    let mut engine = planner();
    for task in [Task::Lego, Task::Complete] {
        let mut request = request(Planning {
            codes: true,
            ..planning()
        });
        request.task = task;
        request.source = Some(Recording::Samples(Arc::new(vec![0.1; 96_000])));
        let (composed, seen) = compose(&engine, &request);
        assert_eq!(seen, [Stage::Reason], "{task}");
        assert!(composed.request.codes.is_empty());
        assert!(
            composed
                .notes
                .iter()
                .any(|n| n.contains("follows the recording"))
        );
        assert_legal(&composed.request);
    }
    let mut nothing = request(Planning {
        codes: true,
        ..planning()
    });
    nothing.task = Task::Lego;
    let failed = engine.make(&nothing, &NoWatch);
    assert!(failed.is_err_and(|e| e.to_string().contains("requires source audio")));
}
