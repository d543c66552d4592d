//! When lyrics are sung: what the network looks at, as upstream's sees it, and what becomes of it.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Bound, Buffer, Caps, HostBytes, HostData, Ready, run_once};
use engine::models::config::DitConfig;
use engine::models::dit::{cross_weights, weights_name};
use engine::program::{Math, Op, Program};
use engine::song::{Engine, NoWatch, Song, SongRequest};
use engine::weights::{Checkpoint, WeightStore};
use std::sync::Arc;
use tests::engines::{engine_on, tiny};
use tests::requests::plain_sampling;

fn cpu() -> CpuBackend {
    CpuBackend::new(2, None).expect("the CPU backend opens")
}

/// Weights of heads of the tiny model at a few places. The numbers are those that upstream's
/// decoder gives for the same inputs (`output_attentions` with `custom_layers_config`).
#[test]
fn the_network_looks_where_upstreams_does() {
    let dir = tiny().join("acestep-v15-turbo");
    let config = DitConfig::load(&dir).expect("a configuration");
    let weights = WeightStore::new(Arc::new(Checkpoint::open(&dir).expect("weights")));
    let maps = [(0, vec![1]), (2, vec![0, 1])];
    let (frames, rows) = (21, 7);
    let program = cross_weights(&config, Math::F32, frames, rows, &maps).expect("a program");
    let ramp = |n: usize, step: usize, from: usize| -> Vec<f32> {
        let at = |i: usize| ((i * step + from) % 29) as f64 / 29.0 * 2.0 - 1.0;
        (0..n).map(|i| at(i) as f32).collect()
    };
    let [x, context, condition] = [
        ramp(frames * 64, 7, 1),
        ramp(frames * 128, 11, 2),
        ramp(rows * 64, 5, 3),
    ];
    let inputs = [
        ("x", HostData::F32(&x)),
        ("context", HostData::F32(&context)),
        ("condition", HostData::F32(&condition)),
        ("t", HostData::F32(&[0.125])),
        ("dt", HostData::F32(&[0.0])),
    ];
    let mut run = run_once(&cpu(), &program, &weights, &inputs, &[]).expect("it runs");
    let mut maps = run.take_f32(&weights_name(0)).expect("weights");
    maps.extend(run.take_f32(&weights_name(2)).expect("weights"));
    assert_eq!(maps.len(), 3 * 11 * rows);
    for (map, want) in [
        [0.1406395, 0.0400054, 0.0845639, 0.4290018, 0.0414812],
        [0.6974865, 0.0329781, 0.0330699, 0.118953, 0.0178511],
        [0.238455, 0.0100983, 0.0681638, 0.2632917, 0.0043863],
    ]
    .into_iter()
    .enumerate()
    {
        for ((token, row), want) in [(0, 0), (0, 6), (5, 3), (10, 1), (10, 6)]
            .into_iter()
            .zip(want)
        {
            let got = maps[(map * 11 + token) * rows + row];
            assert!(
                (got - want).abs() < 2e-6,
                "{map} {token} {row}: {got}, not {want}"
            );
        }
    }
}

fn engine(backend: impl Backend + 'static) -> Engine {
    engine_on(&tiny(), Arc::new(backend), Math::F32).expect("the tiny tree opens")
}

fn request(lyrics: &str, seeds: &[u64]) -> SongRequest {
    SongRequest {
        caption: "upbeat pop".into(),
        lyrics: lyrics.into(),
        language: "en".into(),
        duration_s: Some(6.0),
        lrc: true,
        ..SongRequest::new("acestep-v15-turbo", seeds.to_vec(), plain_sampling(2))
    }
}

fn make(engine: &mut Engine, request: &SongRequest) -> Song {
    engine.make(request, &NoWatch).expect("a song")
}

/// Seconds and text of a line.
fn line(line: &str) -> (f64, &str) {
    let (stamp, text) = line
        .strip_prefix('[')
        .and_then(|l| l.split_once(']'))
        .expect("a stamp");
    let (minutes, seconds) = stamp.split_once(':').expect("minutes");
    let [minutes, seconds]: [f64; 2] = [minutes, seconds].map(|n| n.parse().expect("a number"));
    (60.0 * minutes + seconds, text)
}

#[test]
fn every_line_has_its_time() {
    let mut engine = engine(cpu());
    let lyrics = "[Verse]\nwalking down the silver road\n\n深い海の夢 🌊\nla la la";
    let song = make(&mut engine, &request(lyrics, &[5, 6]));
    assert!(song.composed.notes.is_empty(), "{:?}", song.composed.notes);
    assert!(song.times.align_s > 0.0);
    for item in &song.items {
        let text = item.lrc.as_deref().expect("asked for");
        let lines: Vec<_> = text.lines().map(line).collect();
        let texts: Vec<_> = lines.iter().map(|(_, text)| *text).collect();
        let want: Vec<_> = lyrics.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!(texts, want);
        assert_eq!(lines[0].0, 0.0);
        assert!(
            lines.windows(2).all(|pair| pair[0].0 <= pair[1].0),
            "{text}"
        );
        assert!(lines.iter().all(|(seconds, _)| *seconds < 6.0), "{text}");
    }
    // Each song's own latents are looked at, and those of a batch as those of one.
    let alone = make(&mut engine, &request(lyrics, &[6]));
    assert_eq!(alone.items[0], song.items[1]);
    // It costs the song nothing.
    let mut plain = request(lyrics, &[6]);
    plain.lrc = false;
    let plain = make(&mut engine, &plain);
    assert_eq!(plain.items[0].lrc, None);
    assert_eq!(plain.items[0].pcm, alone.items[0].pcm);
}

#[test]
fn where_nobody_sings_there_are_no_lines() {
    let mut engine = engine(cpu());
    for lyrics in ["", "[Instrumental]", " [inst] "] {
        let song = make(&mut engine, &request(lyrics, &[5]));
        assert_eq!(song.items[0].lrc.as_deref(), Some(""), "{lyrics:?}");
        assert!(song.composed.notes.is_empty());
    }
}

/// A CPU that cannot tell what looks at what.
struct Blind(CpuBackend);

impl Backend for Blind {
    fn caps(&self) -> &Caps {
        self.0.caps()
    }
    fn claims(&self, op: &Op) -> bool {
        !matches!(op, Op::AttentionWeights { .. }) && self.0.claims(op)
    }
    fn scratch_bytes(&self, program: &Program, step: usize) -> usize {
        self.0.scratch_bytes(program, step)
    }
    fn alloc(&self, bytes: usize) -> engine::Result<Buffer> {
        self.0.alloc(bytes)
    }
    fn adopt(&self, host: HostBytes, row_bytes: usize) -> engine::Result<Buffer> {
        self.0.adopt(host, row_bytes)
    }
    fn write(&self, to: &Buffer, offset: usize, bytes: &[u8]) -> engine::Result<()> {
        self.0.write(to, offset, bytes)
    }
    fn read(&self, from: &Buffer, offset: usize, bytes: &mut [u8]) -> engine::Result<()> {
        self.0.read(from, offset, bytes)
    }
    fn prepare(&self, bound: Bound) -> engine::Result<Box<dyn Ready>> {
        self.0.prepare(bound)
    }
}

#[test]
fn a_song_whose_lyrics_cannot_be_timed_is_a_song() {
    let song = make(&mut engine(Blind(cpu())), &request("la la\nla", &[5]));
    assert_eq!(song.items[0].lrc.as_deref(), Some(""));
    match &song.composed.notes[..] {
        [note] => assert!(
            note.starts_with("the lyrics of a song were not timed: "),
            "{note}"
        ),
        notes => panic!("{notes:?}"),
    }
}
