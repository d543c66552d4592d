//! Songs on a WebGPU device that has little memory and gives it in small pieces: what does not fit
//! is divided, decoded in smaller tiles, or refused with figures before the device refuses it.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, HostBytes};
use engine::song::{Stage, Watch};
use engine::{Error, Result};
use shaders::Options;
use std::cell::RefCell;
use std::sync::Arc;
use tests::adapter::{self, MATH, signal_to_error};
use tests::engines::engine_on;

const MIB: u64 = 1 << 20;

/// The stages that were entered, and tiles of the last one.
#[derive(Default)]
struct Seen(RefCell<Vec<(Stage, usize)>>);

impl Watch for Seen {
    fn progress(&self, stage: Stage, _: usize, total: usize) {
        self.0.borrow_mut().push((stage, total));
    }

    fn cancelled(&self) -> bool {
        false
    }
}

impl Seen {
    fn total(&self, of: Stage) -> Option<usize> {
        let seen = self.0.borrow();
        let found = seen.iter().find(|(stage, _)| *stage == of);
        found.map(|(_, total)| *total)
    }
}

#[test]
fn a_song_in_small_pieces_is_that_of_the_processor() {
    let binding = MIB;
    let small = Options {
        binding_bytes: Some(binding),
        buffer_bytes: Some(12 * MIB),
        memory_bytes: Some(48 * MIB),
        ..Options::default()
    };
    let Some(gpu) = adapter::open(&small).map(Arc::new) else {
        return;
    };
    let (_folder, tree) = adapter::demo_tree();
    let cpu: Arc<dyn Backend> = Arc::new(CpuBackend::new(2, None).expect("the processor opens"));
    let backends: [Arc<dyn Backend>; 2] = [cpu, gpu.clone()];
    let [(cpu, whole), (song, tiles)] = backends.map(|backend| {
        let mut engine = engine_on(&tree, backend, MATH).expect("the tree opens");
        let seen = Seen::default();
        let song = engine.make(&adapter::short_song(vec![5]), &seen);
        let tiles = seen.total(Stage::Decode).expect("it was decoded");
        (song.expect("a song").items.swap_remove(0), tiles)
    });
    let (_, peak) = gpu.memory_in_use();
    println!("{tiles} tiles, {peak} bytes at most, {:?}", gpu.counts());
    assert!(whole == 1 && tiles > 1, "{whole}, {tiles}");
    assert!(peak <= 48 * MIB, "{peak}");
    // The decoder has 16 channels in f32 for each of a tile's samples at its end.
    let samples = song.pcm.len() / 2 / tiles;
    assert!(samples as u64 * 16 * 4 > 2 * binding);
    let latents = signal_to_error(&cpu.latents, &song.latents);
    let pcm = signal_to_error(&cpu.pcm, &song.pcm);
    assert!(latents > 80.0 && pcm > 60.0, "{latents} dB, {pcm} dB");
}

#[test]
fn a_song_that_does_not_fit_is_refused_before_it_is_begun() {
    let have = 8 * MIB;
    let small = Options {
        memory_bytes: Some(have),
        ..Options::default()
    };
    let Some(gpu) = adapter::open(&small).map(Arc::new) else {
        return;
    };
    let (_folder, tree) = adapter::demo_tree();
    let mut engine = engine_on(&tree, gpu.clone(), MATH).expect("the tree opens");
    let seen = Seen::default();
    let refused = engine.make(&adapter::short_song(vec![5]), &seen);
    let error = refused.expect_err("it does not fit");
    println!("{error}");
    let figures =
        matches!(error, Error::TooBig { needs, have: h, .. } if needs > have && h == have);
    assert!(figures, "{error:?}");
    assert_eq!(seen.total(Stage::Diffuse), None);
    assert!(gpu.memory_in_use().1 <= have);
}

#[test]
fn memory_that_is_used_up_is_said_and_given_back() -> Result<()> {
    let small = Options {
        memory_bytes: Some(4 * MIB),
        ..Options::default()
    };
    let Some(gpu) = adapter::open(&small) else {
        return Ok(());
    };
    let bytes = (3 * MIB) as usize;
    let first = gpu.alloc(bytes)?;
    let weight = HostBytes::new(Arc::new(vec![0u8; bytes]), 0..bytes);
    let refusals = [
        gpu.alloc(bytes).map(drop),
        gpu.adopt(weight.expect("within bounds"), 4096).map(drop),
    ];
    for refused in refusals {
        let error = refused.expect_err("3 MiB of the 4 are in use");
        println!("{error}");
        let figures = matches!(error, Error::TooBig { needs, have, .. }
            if needs == 3 * MIB && have == MIB);
        assert!(
            figures && error.to_string().contains("3 MiB in use"),
            "{error:?}"
        );
    }
    assert_eq!(gpu.memory_in_use().0, 3 * MIB);
    drop(first);
    gpu.alloc(bytes).map(drop)
}
