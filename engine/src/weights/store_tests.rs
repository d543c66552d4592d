//! What a store hands to a backend: in place where it can, folded once where it must.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::backend::{Bound, Buffer, Caps, Ready, Release};
use crate::program::Op;
use half::{bf16, f16};
use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// A backend that only keeps what it adopts.
struct Shelf {
    caps: Caps,
    kept: Mutex<Vec<HostBytes>>,
    released: Arc<Count>,
}

#[derive(Default)]
struct Count(AtomicU64);

impl Release for Count {
    fn release(&self, _: u64) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Backend for Shelf {
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn claims(&self, _: &Op) -> bool {
        false
    }
    fn alloc(&self, _: usize) -> Result<Buffer> {
        Err(Error::Bug("a shelf allocates nothing".into()))
    }
    fn adopt(&self, host: HostBytes, _: usize) -> Result<Buffer> {
        let mut kept = self.kept.lock().unwrap();
        let bytes = host.bytes().len();
        kept.push(host);
        Ok(Buffer::new(
            kept.len() as u64 - 1,
            bytes,
            self.released.clone(),
        ))
    }
    fn write(&self, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
        Err(Error::Bug("a shelf is read-only".into()))
    }
    fn read(&self, from: &Buffer, offset: usize, out: &mut [u8]) -> Result<()> {
        let kept = self.kept.lock().unwrap();
        out.copy_from_slice(&kept[from.id() as usize].bytes()[offset..offset + out.len()]);
        Ok(())
    }
    fn prepare(&self, _: Bound) -> Result<Box<dyn Ready>> {
        Err(Error::Bug("a shelf runs nothing".into()))
    }
}

fn shelf() -> Shelf {
    let caps = Caps {
        name: "shelf".into(),
        memory_bytes: 0,
        align: 4,
        piece_bytes: usize::MAX,
        native_bf16: false,
    };
    Shelf {
        caps,
        kept: Mutex::default(),
        released: Arc::default(),
    }
}

const VALUES: [f32; 12] = [
    1.0, -2.0, 3.0, 4.0, 0.5, 6.0, 7.0, 8.0, -9.0, 10.0, 11.0, 12.0,
];

fn store() -> (TempDir, WeightStore) {
    let dir = tempfile::tempdir().unwrap();
    let f32s: Vec<u8> = VALUES.iter().flat_map(|x| x.to_le_bytes()).collect();
    let bf16s: Vec<u8> = VALUES
        .iter()
        .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
        .collect();
    let f16s: Vec<u8> = VALUES
        .iter()
        .flat_map(|x| f16::from_f32(*x).to_le_bytes())
        .collect();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("f32", view(Dtype::F32, &[3, 4], f32s.as_slice())),
        ("bf16", view(Dtype::BF16, &[3, 4], &bf16s)),
        ("f16", view(Dtype::F16, &[12], &f16s)),
        ("conv.weight_v", view(Dtype::BF16, &[2, 3, 2], &bf16s)),
        ("conv.weight_g", view(Dtype::F32, &[2, 1, 1], &f32s[..8])),
    ];
    std::fs::write(
        dir.path().join("model.safetensors"),
        serialize(tensors, None).unwrap(),
    )
    .unwrap();
    let store = WeightStore::new(Arc::new(Checkpoint::open(dir.path()).unwrap()));
    (dir, store)
}

fn decl(name: &str, stored: &[usize], form: WeightForm, widen: bool) -> WeightDecl {
    let mut shape = stored.to_vec();
    match form {
        WeightForm::Tiled(n) => shape[0] *= n,
        WeightForm::Permuted(p) | WeightForm::WeightNorm(p) => {
            shape = p.iter().map(|axis| stored[*axis]).collect();
        }
        WeightForm::Rows { len, .. } => shape[0] = len,
        WeightForm::Stored => {}
    }
    WeightDecl {
        name: name.into(),
        stored: stored.to_vec(),
        shape,
        form,
        widen,
    }
}

#[test]
fn rows_are_a_part_of_the_one_region() {
    let (_dir, store) = store();
    let backend = shelf();
    let whole = decl("bf16", &[3, 4], WeightForm::Stored, false);
    let whole = store.region(&backend, &whole, Math::Bf16).unwrap();
    let rows = WeightForm::Rows { start: 1, len: 2 };
    let rows = store
        .region(&backend, &decl("bf16", &[3, 4], rows, false), Math::Bf16)
        .unwrap();
    assert_eq!(rows.buffer().id(), whole.buffer().id());
    assert_eq!((rows.shape(), rows.dtype()), (&[2, 4][..], DType::BF16));
    assert_eq!(rows.offset(), whole.offset() + 8);
    let beyond = WeightForm::Rows { start: 2, len: 2 };
    let error = store
        .region(&backend, &decl("bf16", &[3, 4], beyond, false), Math::Bf16)
        .err()
        .unwrap();
    assert!(error.to_string().contains("rows 2..4"), "{error}");
}

#[test]
fn stored_weights_stay_in_the_mapping() {
    let (_dir, store) = store();
    let backend = shelf();
    for (name, stored, dtype) in [
        ("f32", &[3, 4][..], DType::F32),
        ("bf16", &[3, 4], DType::BF16),
        ("f16", &[12], DType::F16),
    ] {
        let d = decl(name, stored, WeightForm::Stored, false);
        let region = store.region(&backend, &d, Math::Bf16).unwrap();
        assert_eq!((region.dtype(), region.shape()), (dtype, stored));
        let mapped = store
            .checkpoint()
            .bytes(store.checkpoint().get(name).unwrap())
            .as_ptr();
        let kept = backend.kept.lock().unwrap();
        assert_eq!(
            kept.last().unwrap().bytes().as_ptr(),
            mapped,
            "{name} was copied"
        );
    }
}

#[test]
fn vectors_are_widened_and_regrouped_once() {
    let (_dir, store) = store();
    let backend = shelf();
    for name in ["bf16", "f16"] {
        let stored: &[usize] = if name == "f16" { &[12] } else { &[3, 4] };
        let d = decl(name, stored, WeightForm::Stored, true);
        let region = store.region(&backend, &d, Math::F32).unwrap();
        assert_eq!(region.read_f32(&backend).unwrap(), VALUES);
        let other = WeightDecl {
            shape: vec![2, 6],
            ..d.clone()
        };
        let again = store.region(&backend, &other, Math::Bf16).unwrap();
        assert_eq!(again.buffer().id(), region.buffer().id());
        assert_eq!(again.shape(), [2, 6]);
    }
    assert_eq!(backend.kept.lock().unwrap().len(), 2);
    assert_eq!(store.resident_bytes(), 96);
    drop(store);
    assert_eq!(backend.released.0.load(Ordering::SeqCst), 2);
}

#[test]
fn folded_weights_follow_the_arithmetic() {
    let (_dir, store) = store();
    let backend = shelf();
    let d = decl("conv", &[2, 3, 2], WeightForm::WeightNorm([0, 2, 1]), false);
    let region = store.region(&backend, &d, Math::F32).unwrap();
    assert_eq!(region.shape(), [2, 2, 3]);
    let got = region.read_f32(&backend).unwrap();
    for (row, norm) in [(0, 1.0f64), (1, -2.0)] {
        let v = &VALUES[row * 6..row * 6 + 6];
        let length = v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        for k in 0..2 {
            for c in 0..3 {
                let want = f64::from(v[c * 2 + k]) * norm / length;
                let x = f64::from(got[row * 6 + k * 3 + c]);
                assert!((x - want).abs() < 1e-6 * want.abs(), "{x} {want}");
            }
        }
    }
    let half = store.region(&backend, &d, Math::Bf16).unwrap();
    assert_eq!((half.dtype(), half.bytes()), (DType::BF16, 24));
    let mut bytes = [0u8; 24];
    backend.read(half.buffer(), 0, &mut bytes).unwrap();
    let rounded: Vec<u8> = got
        .iter()
        .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
        .collect();
    assert_eq!(bytes[..], rounded);
}

#[test]
fn reordered_and_repeated_weights() {
    let (_dir, store) = store();
    let backend = shelf();
    let d = decl(
        "conv.weight_v",
        &[2, 3, 2],
        WeightForm::Permuted([2, 1, 0]),
        true,
    );
    let got = store
        .region(&backend, &d, Math::F32)
        .unwrap()
        .read_f32(&backend)
        .unwrap();
    assert_eq!(got[..4], [VALUES[0], VALUES[6], VALUES[2], VALUES[8]]);
    let d = decl("f16", &[12], WeightForm::Tiled(2), false);
    let region = store.region(&backend, &d, Math::F32).unwrap();
    assert_eq!((region.dtype(), region.len()), (DType::F16, 24));
}

#[test]
fn a_weight_that_is_not_there_is_named() {
    let (_dir, store) = store();
    for (name, stored) in [("gone", &[3][..]), ("f32", &[4, 3])] {
        let d = decl(name, stored, WeightForm::Stored, false);
        let Err(Error::Corrupt(text)) = store.region(&shelf(), &d, Math::F32).map(|_| ()) else {
            panic!("{name}")
        };
        assert!(
            text.contains(name) && text.contains("model.safetensors"),
            "{text}"
        );
    }
    let d = decl("f32", &[3, 4], WeightForm::Permuted([0, 0, 1]), false);
    assert!(matches!(
        store.region(&shelf(), &d, Math::F32),
        Err(Error::Bug(_))
    ));
}
