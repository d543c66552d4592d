//! A WebGPU device that is lost, what is kept of compiled shaders from start to start, and shaders
//! that check their indices.

use engine::backend::{Backend, Region};
use engine::program::DType;
use engine::{Error, Result};
use shaders::{Options, WgpuBackend};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tests::adapter;
use tests::cases::Case;
use tests::conformance::conformance;
use tests::reference::evaluate;
use tests::run::{Form, Prepared, run};

/// The first case whose operation has this name.
fn case(op: &str) -> Case {
    let mut all = conformance().into_iter();
    all.find(|case| case.op.name() == op).expect("there is one")
}

fn right(backend: &dyn Backend, case: &Case) {
    let want = evaluate(&case.op, &case.values(), &case.scalars, case.math);
    let got = run(backend, case, Form::Plain).expect("runs");
    want.compare(&got).expect(&case.name);
}

/// Whether the loss is what is told, in a sentence for people.
fn says_lost<T>(result: Result<T>) {
    let error = result.err().expect("the device is gone");
    let text = error.to_string();
    assert!(matches!(error, Error::DeviceLost(_)), "{error:?}");
    assert!(
        text.contains("was lost") && text.contains("opens it anew"),
        "{text}"
    );
}

#[test]
fn a_lost_device_is_an_error_whatever_is_asked_and_another_works() {
    let Some(backend) = adapter::open(&Options::default()) else {
        return;
    };
    let linear = case("linear");
    let mut prepared = Prepared::new(&backend, &linear, Form::Plain).expect("ready");
    let region = Region::zeros(&backend, &[64], DType::F32).expect("memory");
    // In the middle: runs are recorded that nobody has waited for.
    prepared.ready.run(&linear.scalars).expect("runs");
    backend.lose();
    says_lost(prepared.result(&backend));
    says_lost(
        prepared
            .ready
            .run(&linear.scalars)
            .and_then(|()| prepared.result(&backend)),
    );
    says_lost(region.write_f32(&backend, &[1.0; 64]));
    says_lost(region.read_f32(&backend));
    says_lost(backend.alloc(1 << 20));
    says_lost(Prepared::new(&backend, &case("attention"), Form::Plain));
    drop((prepared, region, backend));
    let again = adapter::open(&Options::default()).expect("it was there before");
    right(&again, &linear);
}

#[test]
fn a_loss_while_others_compute_panics_nowhere() {
    let Some(backend) = adapter::open(&Options::default()).map(Arc::new) else {
        return;
    };
    let linear = case("linear");
    std::thread::scope(|scope| {
        let work = || {
            let mut prepared = Prepared::new(&*backend, &linear, Form::Plain)?;
            loop {
                prepared.ready.run(&linear.scalars)?;
                prepared.result(&*backend)?;
            }
        };
        let work: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        std::thread::sleep(std::time::Duration::from_millis(200));
        backend.lose();
        for work in work {
            let ended: Result<()> = work.join().expect("no panic");
            says_lost(ended);
        }
    });
}

/// Bytes and time of the one file in a folder of caches.
fn file(folder: &Path) -> (PathBuf, Vec<u8>, SystemTime) {
    let files = std::fs::read_dir(folder).expect("a folder");
    let paths: Vec<_> = files.map(|f| f.expect("an entry").path()).collect();
    let [path] = &paths[..] else {
        panic!("{paths:?}");
    };
    let changed = std::fs::metadata(path).and_then(|m| m.modified());
    let bytes = std::fs::read(path).expect("is read");
    (path.clone(), bytes, changed.expect("a time"))
}

/// Bytes of a file without any shader: checksum, header of wgpu, header of Vulkan.
const HEADERS: usize = 8 + 64 + 32;

/// As the backend writes it: behind its 64-bit FNV-1a.
fn sealed(data: &[u8]) -> Vec<u8> {
    let sum = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    [&sum.to_le_bytes(), data].concat()
}

#[test]
fn compiled_shaders_are_kept_where_the_driver_gives_them_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("cache");
    let options = Options {
        cache: Some(folder.clone()),
        ..Options::default()
    };
    let linear = case("linear");
    let use_once = || adapter::open(&options).map(|device| right(&device, &linear));
    if use_once().is_none() {
        return;
    }
    let caches = shaders::adapters()[0]
        .features()
        .contains(&"pipeline cache");
    if !caches {
        assert!(!folder.exists());
        eprintln!("skipped: the driver keeps no pipelines");
        return;
    }
    let (path, first, written) = file(&folder);
    assert!(first.len() > 100, "{}", first.len());
    // What is read back holds all that is needed: nothing is written again.
    use_once();
    assert_eq!(file(&folder), (path.clone(), first.clone(), written));
    for damaged in [&first[..first.len() / 2], b"", b"not a cache"] {
        std::fs::write(&path, damaged).expect("written");
        use_once();
        let (_, now, _) = file(&folder);
        assert_eq!(now.len(), first.len(), "{} bytes", damaged.len());
        assert_eq!(sealed(&now[8..]), now, "whole again");
    }
    // A file of another driver has another header: vendor and device.
    let mut foreign = first[8..].to_vec();
    foreign.iter_mut().take(64).for_each(|byte| *byte ^= 0x55);
    std::fs::write(&path, sealed(&foreign)).expect("written");
    use_once();
    if first.len() <= HEADERS {
        eprintln!("the driver gives out nothing but a header: nothing to write anew");
        return;
    }
    let (_, now, _) = file(&folder);
    assert!(now.len() == first.len() && now[8..] != foreign);
    // More shaders, more to keep.
    let again = WgpuBackend::open_with(0, &options).expect("opens");
    right(&again, &case("attention"));
    assert!(file(&folder).1.len() > first.len());
}

#[test]
fn a_folder_that_cannot_be_written_is_no_fault() {
    let dir = tempfile::tempdir().expect("a folder");
    let in_the_way = dir.path().join("file");
    std::fs::write(&in_the_way, "").expect("written");
    let options = Options {
        cache: Some(in_the_way.join("cache")),
        ..Options::default()
    };
    if let Some(backend) = adapter::open(&options) {
        right(&backend, &case("linear"));
    }
}

#[test]
fn shaders_that_check_their_indices_agree_with_the_reference() {
    let options = Options {
        checks: true,
        ..Options::default()
    };
    let Some(backend) = adapter::open(&options) else {
        return;
    };
    // One case of every operation: such shaders take long to compile and to run.
    let mut seen = BTreeSet::new();
    for case in conformance() {
        if seen.insert(case.op.name()) {
            right(&backend, &case);
        }
    }
    assert!(seen.len() > 35, "{}", seen.len());
}
