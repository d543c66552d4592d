//! `silence_latent.pt`: reading back what is written, and surviving any bytes.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn silence(frames: usize, channels: usize) -> Silence {
    let data = (0..frames * channels)
        .map(|i| i as f32 * 0.25 - 3.0)
        .collect();
    Silence {
        frames,
        channels,
        data,
    }
}

/// The parts of a well-formed archive with one replaced.
fn with(name: &str, bytes: &[u8]) -> Vec<u8> {
    archive(&[
        (
            "s/data.pkl",
            if name == "data.pkl" {
                bytes.to_vec()
            } else {
                pickle(&[1, 4, 2])
            },
        ),
        (
            "s/byteorder",
            if name == "byteorder" {
                bytes.to_vec()
            } else {
                b"little".to_vec()
            },
        ),
        (
            "s/data/0",
            if name == "data/0" {
                bytes.to_vec()
            } else {
                vec![0; 32]
            },
        ),
    ])
}

#[test]
fn the_layout_is_channels_first() {
    let file = silence(7, 4).to_torch();
    assert_eq!(Silence::parse(&file, 4).unwrap(), silence(7, 4));
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let read = Silence::parse(&with("data/0", &data), 2).unwrap();
    assert_eq!((read.frames, read.data), (2, vec![1.0, 3.0, 2.0, 4.0]));
}

#[test]
fn refusals_say_what_is_wrong() {
    for (file, says) in [
        (Vec::new(), "too short"),
        (vec![0; 500], "not a zip archive"),
        (with("byteorder", b"big"), "big-endian"),
        (
            with("data.pkl", b"\x80\x02ctorch\nBFloat16Storage\n."),
            "32-bit",
        ),
        (with("data/0", &[0; 30]), "multiple of 16"),
        (with("data/0", &[]), "multiple of 16"),
        (
            with("data/0", &f32::NAN.to_le_bytes().repeat(4)),
            "not finite",
        ),
        (
            archive(&[("s/data/1", vec![0; 16])]),
            "no entry ends in /data/0",
        ),
    ] {
        let error = Silence::parse(&file, 4).unwrap_err();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
    // Deflated: the method in the directory entry of data/0.
    let mut file = with("", &[]);
    let at = file
        .windows(4)
        .rposition(|w| w == CENTRAL.to_le_bytes())
        .unwrap();
    file[at + 10] = 8;
    assert!(Silence::parse(&file, 4).unwrap_err().contains("compressed"));
}

#[test]
fn sixty_four_bit_sizes_are_read_from_the_extra_field() {
    let mut file = with("", &[]);
    let at = file
        .windows(4)
        .rposition(|w| w == CENTRAL.to_le_bytes())
        .unwrap();
    let size = 32u64.to_le_bytes();
    file[at + 20..at + 28].fill(0xff);
    file[at + 30] = 20;
    let extra: Vec<u8> = [&[1, 0, 16, 0], &size[..], &size[..]].concat();
    let end = at + 46 + "s/data/0".len();
    file.splice(end..end, extra);
    assert_eq!(Silence::parse(&file, 4).unwrap().frames, 2);
    // A size beyond the file, and one that overflows.
    for size in [1u64 << 40, u64::MAX] {
        file[end + 4..end + 12].copy_from_slice(&size.to_le_bytes());
        file[end + 12..end + 20].copy_from_slice(&size.to_le_bytes());
        assert!(Silence::parse(&file, 4).is_err());
    }
}

#[test]
fn a_tensor_that_is_not_finite_is_refused() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    for (value, ok) in [(0.5, true), (f32::INFINITY, false), (f32::NAN, false)] {
        let dir = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = [0.0, 0.0, value, 0.0f32]
            .iter()
            .flat_map(|x| x.to_le_bytes())
            .collect();
        let view = TensorView::new(Dtype::F32, vec![1, 2, 2], &bytes).unwrap();
        let file = serialize([("silence_latent", view)], None).unwrap();
        std::fs::write(dir.path().join("model.safetensors"), file).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        match Silence::load(dir.path(), &checkpoint, 2) {
            Ok(silence) => assert!(ok && silence.frames == 2, "{value}"),
            Err(e) => assert!(
                !ok && e.to_string().contains("frame 1 is not finite"),
                "{e}"
            ),
        }
    }
}

proptest! {
    /// Any cut and any changed byte gives a value or an error, never a panic.
    #[test]
    fn hostile_bytes(cut in 0usize..2000, at in 0usize..2000, byte: u8) {
        let mut file = silence(4, 4).to_torch();
        let at = at % file.len();
        file[at] = byte;
        let _ = Silence::parse(&file, 4);
        let cut = cut % file.len();
        prop_assert!(Silence::parse(&file[..cut], 4).is_err());
    }

    #[test]
    fn noise(file in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Silence::parse(&file, 4).is_err());
    }
}
