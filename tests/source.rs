//! Recordings to latents and codes on the demonstration tree: the tiny one has no audio encoder.

use engine::audio::read::{MAX_SECONDS, read, read_bytes};
use engine::audio::{AudioFormat, Mp3, Pcm, write};
use engine::backend::cpu::CpuBackend;
use engine::models::vae_encoder::encode_overlap;
use engine::program::Math;
use engine::song::loaded::{LoadedDit, LoadedVae};
use engine::song::{NoWatch, Stage, Watch};
use engine::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use tests::engines::on_processor;

/// A part of a demonstration tree that is written once.
fn demo(part: &str) -> PathBuf {
    static TREE: LazyLock<TempDir> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a folder");
        engine::weights::demo::demo(&dir.path().join("demo")).expect("written");
        dir
    });
    TREE.path().join("demo").join(part)
}

fn cpu() -> CpuBackend {
    CpuBackend::new(2, None).expect("the CPU backend opens")
}

/// A few tones that swell and fade, interleaved stereo at 48 kHz.
fn music(samples: usize) -> Vec<f32> {
    let tone = |t: f32, f: f32| (t * f * std::f32::consts::TAU).sin();
    (0..samples)
        .flat_map(|i| {
            let t = i as f32 / 48_000.0;
            let height = 0.3 + 0.2 * tone(t, 1.5);
            [
                height * (tone(t, 220.0) + 0.5 * tone(t, 554.4)),
                height * (tone(t, 329.6) + 0.3 * tone(t, 1760.0)),
            ]
        })
        .collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |max: f32, (a, b)| max.max((a - b).abs()))
}

/// Tiles change nothing, wherever the recording ends.
#[test]
fn tiles_equal_the_whole() {
    let cpu = cpu();
    let vae = LoadedVae::open(&demo("vae"), Math::F32).expect("the VAE opens");
    let encoder = vae.encoder(&cpu, Math::F32).expect("it has an encoder");
    let overlap = encode_overlap(&vae.config);
    // 20 frames, and as much behind them as there can be.
    let pcm = music(1920 * 21 - 1);
    let whole = encoder.encode(&pcm, 1000, 0, &NoWatch).expect("encoded");
    assert_eq!(whole.mean.len(), 20 * 64);
    let tiled = encoder
        .encode(&pcm, 17, overlap, &NoWatch)
        .expect("encoded");
    let off = distance(&tiled.mean, &whole.mean);
    assert!(off < 1e-5, "off by {off}");
    // The comparison can fail: less overlap is seen.
    let less = encoder.encode(&pcm, 13, 2, &NoWatch).expect("encoded");
    assert!(distance(&less.mean, &whole.mean) > 1e-4);
}

#[test]
fn less_than_a_frame_is_refused() {
    let cpu = cpu();
    let vae = LoadedVae::open(&demo("vae"), Math::F32).expect("the VAE opens");
    let encoder = vae.encoder(&cpu, Math::F32).expect("it has an encoder");
    let refused = encoder.latents(&music(1919), &NoWatch);
    assert!(matches!(refused, Err(Error::Request(why)) if why.contains("1919 samples")));
    let one = encoder.latents(&music(1920), &NoWatch).expect("encoded");
    assert_eq!(one.len(), 64);
}

/// A VAE without its encoder makes songs; only recordings it cannot hear.
#[test]
fn half_a_vae_still_decodes() {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny/vae");
    let cpu = cpu();
    let vae = LoadedVae::open(&tiny, Math::F32).expect("the VAE opens");
    let pcm = vae
        .on(&cpu, Math::F32)
        .decode_song(&vec![0.1; 64 * 4], &NoWatch);
    assert_eq!(pcm.expect("decoded").len(), 4 * 1920 * 2);
    let Err(refused) = vae.encoder(&cpu, Math::F32) else {
        panic!("an encoder without weights");
    };
    assert!(refused.to_string().contains("encoder."), "{refused}");
}

#[test]
fn encoding_stops_between_tiles() {
    struct Stop(AtomicUsize);
    impl Watch for Stop {
        fn progress(&self, stage: Stage, done: usize, total: usize) {
            assert_eq!((stage, total), (Stage::Encode, 3));
            self.0.store(done, Ordering::Relaxed);
        }
        fn cancelled(&self) -> bool {
            self.0.load(Ordering::Relaxed) == 2
        }
    }
    let cpu = cpu();
    let vae = LoadedVae::open(&demo("vae"), Math::F32).expect("the VAE opens");
    let encoder = vae.encoder(&cpu, Math::F32).expect("it has an encoder");
    let stop = Stop(AtomicUsize::new(0));
    let stopped = encoder.encode(&music(1920 * 9), 5, 1, &stop);
    assert_eq!(stopped, Err(Error::Cancelled));
    assert_eq!(stop.0.into_inner(), 2);
}

/// Groups of five frames are coded alone, the last one filled with silence.
#[test]
fn codes_are_of_five_frames_each() {
    let cpu = cpu();
    let dit = LoadedDit::open("turbo", &demo("acestep-v15-turbo"), Math::F32).expect("opens");
    let vae = LoadedVae::open(&demo("vae"), Math::F32).expect("the VAE opens");
    let encoder = vae.encoder(&cpu, Math::F32).expect("it has an encoder");
    let latents = encoder
        .latents(&music(1920 * 23), &NoWatch)
        .expect("encoded");
    let codes = dit.encode_codes(&cpu, &latents).expect("coded");
    assert_eq!(codes.len(), 5);
    assert!(codes.iter().all(|c| (*c as usize) < dit.config.codes()));
    let one = dit
        .encode_codes(&cpu, &latents[5 * 64..10 * 64])
        .expect("coded");
    assert_eq!(one, codes[1..2]);
    let filled = [&latents[20 * 64..], &dit.silence(2)].concat();
    assert_eq!(dit.encode_codes(&cpu, &filled).expect("coded"), codes[4..]);
    let again = dit.decode_codes(&cpu, &codes).expect("decoded");
    assert_eq!(again.len(), 25 * 64);
    // More than are computed at once.
    let many = latents[..5 * 64].repeat(300);
    let all = dit.encode_codes(&cpu, &many).expect("coded");
    assert_eq!(all, vec![codes[0]; 300]);
}

fn file_of(pcm: &[f32], format: AudioFormat) -> Result<Vec<f32>> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("song.anything");
    let pcm = Pcm {
        samples: pcm,
        rate: 48_000,
    };
    write(&path, pcm, format, None)?;
    read(&path, MAX_SECONDS, &NoWatch)
}

/// A file to its codes in one call, which are those of its latents; nothing to hear is refused.
#[test]
fn a_file_has_the_codes_of_its_latents() {
    let mut engine = on_processor(&demo("")).expect("the tree opens");
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("song.wav");
    let mut codes_of = |samples: &[f32]| {
        let rate = 48_000;
        write(&path, Pcm { samples, rate }, AudioFormat::Wav32, None).expect("written");
        engine.codes_of_audio("acestep-v15-turbo", &path, &NoWatch)
    };
    let pcm = music(1920 * 23 + 5);
    let codes = codes_of(&pcm).expect("coded");

    let cpu = cpu();
    let dit = LoadedDit::open("turbo", &demo("acestep-v15-turbo"), Math::F32).expect("opens");
    let vae = LoadedVae::open(&demo("vae"), Math::F32).expect("the VAE opens");
    let encoder = vae.encoder(&cpu, Math::F32).expect("it has an encoder");
    let latents = encoder.latents(&pcm, &NoWatch).expect("encoded");
    assert_eq!(codes, dit.encode_codes(&cpu, &latents).expect("coded"));
    assert_eq!(codes.len(), 5);

    for (pcm, part) in [
        (vec![1e-7; 96_000], "song.wav is silent"),
        (music(1000), "1000 samples"),
    ] {
        let refused = codes_of(&pcm);
        assert!(
            matches!(&refused, Err(Error::Request(why)) if why.contains(part)),
            "{refused:?}"
        );
    }
}

/// What the writer writes, the reader reads.
#[test]
fn own_files_are_read_back() {
    let pcm = music(48_000);
    let wav32 = file_of(&pcm, AudioFormat::Wav32).expect("read");
    assert_eq!(wav32, pcm);
    let wav = file_of(&pcm, AudioFormat::Wav).expect("read");
    assert!(distance(&wav, &pcm) < 2.0 / 32_768.0);
    let mp3 = Mp3::new("320k", 48_000).expect("known");
    let mp3 = file_of(&pcm, AudioFormat::Mp3(mp3)).expect("read");
    assert_eq!(mp3.len(), pcm.len(), "delay and padding are cut");
    let off = distance(&mp3[9600..86_400], &pcm[9600..86_400]);
    assert!(off < 0.002, "off by {off}");
}

#[test]
fn what_is_not_a_file_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let absent = read(&dir.path().join("absent.wav"), MAX_SECONDS, &NoWatch);
    assert!(matches!(absent, Err(Error::Request(why)) if why.contains("absent.wav")));
    let folder = read(dir.path(), MAX_SECONDS, &NoWatch);
    assert!(matches!(folder, Err(Error::Request(why)) if why.contains("regular file")));
    let device = read(Path::new("/dev/zero"), MAX_SECONDS, &NoWatch);
    assert!(matches!(device, Err(Error::Request(_))));
    let empty = read_bytes(Vec::new(), "empty.mp3", MAX_SECONDS, &NoWatch);
    assert!(matches!(empty, Err(Error::Request(why)) if why.contains("empty.mp3 is empty")));
}
