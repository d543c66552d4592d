//! The planner on the tiny language model, whose weights are random: whatever it would like to
//! write, what comes out keeps the grammar, the user's values and the exact number of codes.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Device};
use engine::program::Math;
use engine::sample::logits::TokenSampling;
use engine::song::plan::{Completion, MAX_PROMPT_TOKENS, Plan, PlanRequest, Planner, Run};
use engine::song::{Facts, Metas, NoWatch, Stage, Watch};
use engine::text::grammar::{Field, Phase, Settings};
use engine::text::{LANGUAGES, LmPrompt, Metadata, Number};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Arc;
use tests::random::Random;

fn planner(math: Math) -> Planner {
    planner_of(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny"),
        math,
    )
}

fn planner_of(tree: &Path, math: Math) -> Planner {
    let tree = Checkpoints::open(tree).expect("there is a tree");
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    let backend = Arc::new(backend) as Arc<dyn Backend>;
    Planner::open(&tree, None, Device { backend, math }, 600).expect("the planner opens")
}

fn request() -> PlanRequest {
    PlanRequest {
        caption: "upbeat pop".into(),
        lyrics: "[Verse]\nla la".into(),
        known: Facts {
            duration_s: Some(5.3),
            ..Facts::default()
        },
        reason: true,
        write_caption: false,
        write_language: true,
        negative: String::new(),
        sampling: TokenSampling::default(),
        seeds: vec![1],
        codes: true,
        batch: true,
        constrained: true,
        debug: false,
    }
}

/// Everything is known: there is nothing to reason about.
fn complete() -> Facts {
    Facts {
        metas: Metas {
            bpm: Some(97),
            key_scale: Some("H minor".into()),
            time_signature: Some("5".into()),
        },
        duration_s: Some(7.0),
        language: None,
    }
}

fn plan(planner: &Planner, request: &PlanRequest) -> Plan {
    planner.plan(request, &NoWatch).expect("a plan is made")
}

fn whole(number: &Option<Number>) -> i64 {
    match number {
        Some(Number::Whole(n)) => *n,
        other => panic!("{other:?} is no number"),
    }
}

/// What the grammar promises of the fields the user left open.
fn assert_legal(plan: &Plan, request: &PlanRequest) {
    let (m, user) = (&plan.metadata, request.known.metadata());
    match &user.bpm {
        Some(bpm) => assert_eq!(m.bpm.as_ref(), Some(bpm)),
        None => assert!((30..=300).contains(&whole(&m.bpm)), "{m:?}"),
    }
    match &user.duration {
        Some(duration) => assert_eq!(m.duration.as_ref(), Some(duration)),
        None => assert!((10..=600).contains(&whole(&m.duration)), "{m:?}"),
    }
    let key = m.keyscale.as_deref().expect("a key");
    match &user.keyscale {
        Some(given) => assert_eq!(key, given),
        None => assert!(key.ends_with(" major") || key.ends_with(" minor"), "{key}"),
    }
    let beats = m.timesignature.as_deref().expect("a time signature");
    match &user.timesignature {
        Some(given) => assert_eq!(beats, given),
        None => assert!(["2", "3", "4", "6"].contains(&beats), "{beats}"),
    }
    let language = m.language.as_deref();
    assert!(
        language.is_none_or(|l| LANGUAGES.contains(&l)),
        "{language:?}"
    );
    assert_eq!(language.is_some(), request.write_language);
    assert_eq!(m.caption.is_some(), request.write_caption, "{m:?}");
}

fn assert_counts(plan: &Plan, songs: usize, codes: usize) {
    assert_eq!(plan.codes.len(), songs);
    for song in &plan.codes {
        assert_eq!(song.len(), codes);
        assert!(song.iter().all(|code| *code < 2048), "{song:?}");
    }
}

#[test]
fn a_plan_is_legal_and_has_five_codes_a_second() {
    for math in [Math::F32, Math::Bf16] {
        let planner = planner(math);
        for seed in 0..5 {
            let mut request = request();
            request.seeds = vec![seed, seed + 100];
            request.write_caption = seed % 2 == 1;
            request.write_language = seed % 3 != 0;
            let plan = plan(&planner, &request);
            assert_legal(&plan, &request);
            assert_counts(&plan, 2, 26);
            assert_ne!(plan.codes[0], plan.codes[1]);
        }
    }
}

#[test]
fn the_demonstration_tree_plans() {
    let dir = tempfile::tempdir().expect("a folder");
    let tree = dir.path().join("demo");
    engine::weights::demo::demo(&tree).expect("written");
    let planner = planner_of(&tree, Math::F32);
    let tokens = planner.tokenizer().vocabulary();
    assert_eq!(tokens.legal_codes(), tokens.codes());
    let request = PlanRequest {
        known: Facts {
            duration_s: Some(10.0),
            ..Facts::default()
        },
        write_caption: true,
        ..request()
    };
    let plan = plan(&planner, &request);
    assert_legal(&plan, &request);
    assert_counts(&plan, 1, 50);
    assert!(plan.codes[0].iter().any(|code| *code != plan.codes[0][0]));
}

#[test]
fn random_requests_never_leave_their_ranges() {
    let planner = planner(Math::Bf16);
    let mut random = Random::named("requests");
    for seed in 0..40 {
        let mut some = |n: usize| (random.below(3) == 0).then(|| random.below(n));
        let metas = Metas {
            bpm: some(271).map(|n| 30 + n as u32),
            key_scale: some(2).map(|n| ["C major", "Bb minor"][n].to_string()),
            time_signature: some(2).map(|n| ["3", "6/8"][n].to_string()),
        };
        let seconds = some(40).map_or(2.0, |n| 0.2 + n as f64 / 7.0);
        let known = Facts {
            metas,
            duration_s: Some(seconds),
            language: None,
        };
        let request = PlanRequest {
            known,
            write_caption: some(2).is_some(),
            sampling: TokenSampling {
                temperature: some(30).map_or(0.85, |n| n as f32 / 10.0),
                top_k: some(50).unwrap_or(0),
                top_p: some(11).map_or(0.9, |n| n as f32 / 10.0),
                repetition_penalty: some(5).map_or(1.0, |n| 0.8 + n as f32 / 5.0),
                guidance: some(9).map_or(2.5, |n| n as f32),
            },
            seeds: vec![seed],
            ..request()
        };
        let plan = plan(&planner, &request);
        if !request.known.is_complete() {
            assert_legal(&plan, &request);
        }
        assert_counts(&plan, 1, (seconds * 5.0) as usize);
    }
}

#[test]
fn what_the_user_gave_stays_as_it_is() {
    let planner = planner(Math::F32);
    let mut request = request();
    request.known = complete();
    let all = plan(&planner, &request);
    assert_eq!(all.metadata, complete().metadata());
    // One value is missing: the model writes that one, legal or not the others stay.
    request.known.metas.bpm = None;
    let most = plan(&planner, &request);
    let bpm = whole(&most.metadata.bpm);
    assert!((30..=300).contains(&bpm));
    let language = most.metadata.language.clone();
    let expected = Metadata {
        bpm: Some(Number::Whole(bpm)),
        language,
        ..complete().metadata()
    };
    assert_eq!(most.metadata, expected);
    // Without reasoning nothing is added.
    request.reason = false;
    assert_eq!(plan(&planner, &request).metadata, request.known.metadata());
}

#[test]
fn five_codes_a_second_cut_off() {
    let planner = planner(Math::F32);
    let mut request = request();
    request.known = complete();
    for (seconds, codes) in [(7.0, 35), (0.9, 4), (2.39, 11)] {
        request.known.duration_s = Some(seconds);
        assert_counts(&plan(&planner, &request), 1, codes);
    }
    // Nobody says how long, and nobody is asked: two minutes.
    request.known.duration_s = None;
    request.reason = false;
    assert_counts(&plan(&planner, &request), 1, 600);
    request.codes = false;
    assert_counts(&plan(&planner, &request), 1, 0);
}

#[test]
fn a_song_depends_on_its_own_seed_alone() {
    for math in [Math::F32, Math::Bf16] {
        let planner = planner(math);
        for songs in [5, 8] {
            let mut request = request();
            request.seeds = [7, 8, 9, 7, 10, 11, 12, 13][..songs].to_vec();
            let batch = plan(&planner, &request);
            assert_eq!(batch.codes[0], batch.codes[3]);
            request.batch = false;
            let apart = plan(&planner, &request);
            assert_eq!(apart.codes, batch.codes);
            assert_eq!(apart.metadata, batch.metadata);
            // Reasoning takes the first seed, so the metadata is given here.
            request.known = complete();
            request.batch = true;
            let together = plan(&planner, &request);
            for (seed, codes) in request.seeds.clone().into_iter().zip(&together.codes) {
                request.seeds = vec![seed];
                assert_eq!(&plan(&planner, &request).codes[0], codes, "seed {seed}");
            }
        }
    }
}

#[test]
fn codes_must_be_ones_that_can_be_read() {
    let planner = planner(Math::F32);
    assert_eq!(planner.check_codes("a model", 2048), Ok(()));
    match planner.check_codes("a model", 2047) {
        Err(Error::Corrupt(text)) => {
            assert!(
                text.contains("writes 2048 audio codes, a model knows 2047"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// Nothing is computed for a prompt that is too long.
#[test]
fn prompts_that_are_too_long_are_refused_at_once() {
    let planner = planner(Math::F32);
    let tokens = |text: &str| planner.tokenizer().encode_text(text).expect("read").len();
    let long = "la ".repeat(MAX_PROMPT_TOKENS);
    assert!(tokens(&long) > MAX_PROMPT_TOKENS);
    type Change = fn(&mut PlanRequest, &str);
    let changes: [(Change, &str); 4] = [
        (
            |r, long| r.caption = long.into(),
            "the caption or the lyrics",
        ),
        (
            |r, long| r.lyrics = long.into(),
            "the caption or the lyrics",
        ),
        (|r, long| r.negative = long.into(), "the negative prompt"),
        (
            |r, long| {
                r.lyrics = long.into();
                r.known = complete();
            },
            "the caption or the lyrics",
        ),
    ];
    for (change, named) in changes {
        let mut request = request();
        change(&mut request, &long);
        let watch = Stop::after(Stage::Decode, 0);
        match planner.plan(&request, &watch) {
            Err(Error::Request(text)) => {
                assert!(
                    text.contains("at most 8192") && text.ends_with(named),
                    "{text}"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(watch.seen.into_inner(), []);
    }
    // A negative prompt that is not used may be anything.
    let mut unguided = request();
    unguided.negative = long;
    unguided.sampling.guidance = 1.0;
    assert_counts(&plan(&planner, &unguided), 1, 26);
}

#[test]
fn every_parameter_has_an_effect_on_reasoning() {
    let planner = planner(Math::F32);
    let mut base = request();
    base.codes = false;
    base.write_caption = true;
    let before = plan(&planner, &base).metadata;
    type Change = (&'static str, fn(&mut PlanRequest));
    let changes: [Change; 7] = [
        ("temperature", |r| r.sampling.temperature = 0.1),
        ("top_k", |r| r.sampling.top_k = 1),
        ("top_p", |r| r.sampling.top_p = 0.05),
        ("repetition_penalty", |r| {
            r.sampling.repetition_penalty = 3.0
        }),
        ("caption", |r| r.caption = "slow jazz".into()),
        ("lyrics", |r| r.lyrics = "[Chorus]\noh".into()),
        ("seed", |r| r.seeds = vec![2]),
    ];
    for (name, change) in changes {
        let mut request = base.clone();
        change(&mut request);
        assert_ne!(plan(&planner, &request).metadata, before, "{name}");
    }
    // Guidance is that of the codes.
    base.sampling.guidance = 7.0;
    base.negative = "drums".into();
    assert_eq!(plan(&planner, &base).metadata, before);
}

/// Reading the second prompt behind the first phase's is reading it anew.
#[test]
fn a_kept_prefix_changes_nothing() {
    let planner = planner(Math::F32);
    let mut request = request();
    request.sampling.temperature = 0.0;
    let kept = plan(&planner, &request);
    request.known = Facts {
        language: kept.metadata.language.clone(),
        ..request.known.or(Facts::legal(&kept.metadata))
    };
    request.reason = false;
    let anew = plan(&planner, &request);
    assert_eq!((anew.metadata, anew.codes), (kept.metadata, kept.codes));
}

#[test]
fn every_parameter_has_an_effect() {
    let planner = planner(Math::F32);
    let base = PlanRequest {
        known: complete(),
        ..request()
    };
    let before = plan(&planner, &base).codes;
    type Change = (&'static str, fn(&mut PlanRequest));
    let changes: [Change; 8] = [
        ("temperature", |r| r.sampling.temperature = 0.1),
        ("top_k", |r| r.sampling.top_k = 1),
        ("top_p", |r| r.sampling.top_p = 0.05),
        ("repetition_penalty", |r| {
            r.sampling.repetition_penalty = 3.0
        }),
        ("guidance", |r| r.sampling.guidance = 1.0),
        ("negative", |r| r.negative = "drums".into()),
        ("caption", |r| r.caption = "slow jazz".into()),
        ("seed", |r| r.seeds = vec![2]),
    ];
    for (name, change) in changes {
        let mut request = base.clone();
        change(&mut request);
        assert_ne!(plan(&planner, &request).codes, before, "{name}");
    }
    assert_eq!(plan(&planner, &base).codes, before);
    // A negative prompt is nothing without guidance.
    let mut unguided = base.clone();
    unguided.sampling.guidance = 1.0;
    let codes = plan(&planner, &unguided).codes;
    unguided.negative = "drums".into();
    assert_eq!(plan(&planner, &unguided).codes, codes);
    // Greedy codes need no seed.
    let mut greedy = base.clone();
    greedy.sampling.temperature = 0.0;
    let codes = plan(&planner, &greedy).codes;
    greedy.seeds = vec![99];
    assert_eq!(plan(&planner, &greedy).codes, codes);
}

#[test]
fn events_are_recorded_on_demand_and_change_nothing() {
    let planner = planner(Math::F32);
    let mut request = request();
    let quiet = plan(&planner, &request);
    request.debug = true;
    let loud = plan(&planner, &request);
    assert!(quiet.events.is_empty() && loud.events.len() > 20);
    assert_eq!((quiet.metadata, quiet.codes), (loud.metadata, loud.codes));
}

#[test]
fn without_the_grammar_anything_may_be_written() {
    let planner = planner(Math::Bf16);
    let mut request = request();
    request.constrained = false;
    request.codes = false;
    let free: Result<Plan> = planner.plan(&request, &Stop::after(Stage::Reason, 300));
    // Random weights do not end by themselves; what stopped them is the watch.
    assert_eq!(free.expect_err("it does not end"), Error::Cancelled);
}

#[test]
fn a_description_has_metadata_and_what_the_user_fixed() {
    let planner = planner(Math::F32);
    let mut settings = Settings::new(Phase::Understand);
    settings.user.insert(Field::Bpm, "123".into());
    let describe = |prompt: &LmPrompt, seed| {
        let how = Completion {
            run: Run::Description,
            sampling: TokenSampling::default(),
            seed,
            most: 800,
        };
        let answer = planner.complete_prompt(prompt, settings.clone(), &how, &NoWatch);
        answer.map(|answer| answer.output)
    };
    let prompt = LmPrompt::understand(&[1, 2, 2047]);
    let first = describe(&prompt, 3).expect("is described");
    assert_eq!(whole(&first.metadata.bpm), 123);
    assert!((10..=600).contains(&whole(&first.metadata.duration)));
    assert!(first.metadata.caption.is_some() && first.metadata.keyscale.is_some());
    assert!(first.codes.is_empty());
    assert_eq!(describe(&prompt, 3).expect("again"), first);
    assert_ne!(describe(&prompt, 4).expect("another"), first);
    let inspired = describe(&LmPrompt::inspire("a sea shanty", false), 3);
    assert_ne!(inspired.expect("is invented"), first);
    let unknown = describe(&LmPrompt::understand(&[2048]), 3);
    assert!(unknown.is_err_and(|e| e.to_string().contains("audio code 2048 is unknown")));
}

/// Stops a stage after so many tokens, and remembers what it saw.
struct Stop {
    stage: Stage,
    after: usize,
    reached: Cell<bool>,
    seen: RefCell<Vec<(Stage, usize, usize)>>,
}

impl Stop {
    fn after(stage: Stage, after: usize) -> Self {
        Stop {
            stage,
            after,
            reached: Cell::new(false),
            seen: RefCell::default(),
        }
    }
}

impl Watch for Stop {
    fn progress(&self, stage: Stage, done: usize, total: usize) {
        assert!(done <= total, "{done} of {total}");
        self.reached
            .set(self.reached.get() || stage == self.stage && done >= self.after);
        self.seen.borrow_mut().push((stage, done, total));
    }

    fn cancelled(&self) -> bool {
        self.reached.get()
    }
}

#[test]
fn planning_stops_between_tokens_and_tells_how_far_it_is() {
    let planner = planner(Math::F32);
    let mut request = request();
    for stage in [Stage::Reason, Stage::Codes] {
        let watch = Stop::after(stage, 12);
        let error = planner.plan(&request, &watch).expect_err("it is stopped");
        assert_eq!(error, Error::Cancelled);
        let seen = watch.seen.borrow();
        let last = seen.last().expect("something was told");
        // Forced tokens are not waited for, others are stopped at once.
        assert!(last.0 == stage && (12..30).contains(&last.1), "{last:?}");
    }
    request.seeds = vec![1, 2, 3, 4, 5];
    let watch = Stop::after(Stage::Decode, 0);
    planner.plan(&request, &watch).expect("nothing stops it");
    let seen = watch.seen.into_inner();
    let codes = seen.iter().filter(|(stage, _, _)| *stage == Stage::Codes);
    let codes: Vec<usize> = codes.map(|(_, done, _)| *done).collect();
    assert!(codes.is_sorted(), "{codes:?}");
    assert_eq!((codes.first(), codes.last()), (Some(&0), Some(&52)));
}
