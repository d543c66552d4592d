//! A run allocates nothing: the second run of every operation, of a transformer layer, and the
//! tokens of the language model are watched by a counting allocator.

use engine::backend::cpu::CpuBackend;
use engine::backend::{Backend, Device, NoWeights, Ready, Region, prepare};
use engine::models::language_model::Head;
use engine::program::{Builder, DType, Mask, Math, Op, Program, Val};
use engine::song::NoWatch;
use engine::song::language_model::LanguageModel;
use engine::weights::Checkpoints;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tests::conformance::conformance;
use tests::random::Random;
use tests::run::{Form, Prepared};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promises are the ones `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Allocations of a run, on any thread, after a first one.
fn allocations(ready: &mut dyn Ready, scalars: &[f32]) -> usize {
    ready.run(scalars).expect("runs");
    let before = ALLOCATIONS.load(SeqCst);
    ready.run(scalars).expect("runs again");
    ALLOCATIONS.load(SeqCst) - before
}

/// A layer with self-attention, cross-attention and an MLP, as the diffusion transformer has.
fn layer(math: Math) -> Program {
    let (b, t, s, heads, kv, d, ffn) = (2, 37, 19, 4, 2, 16, 96);
    let h = heads * d;
    let mut p = Builder::new("layer", math);
    let vector = |p: &mut Builder, name: &str, shape: &[usize]| p.input(name, shape);
    let x = vector(&mut p, "x", &[b, t, h]);
    let condition = vector(&mut p, "condition", &[b, s, h]);
    let [norm, head_norm] = [("norm", h), ("head_norm", d)].map(|(n, c)| p.input(n, &[c]));
    let [scale, shift, gate] = ["scale", "shift", "gate"].map(|n| p.input(n, &[b, h]));
    let [cos, sin] = ["cos", "sin"].map(|n| p.input(n, &[t, d / 2]));
    let [wq, wo] = ["q", "o"].map(|n| p.input(n, &[h, h]));
    let [wk, wv] = ["k", "v"].map(|n| p.input(n, &[kv * d, h]));
    let [wg, wu] = ["gate_proj", "up_proj"].map(|n| p.input(n, &[ffn, h]));
    let wd = p.input("down_proj", &[h, ffn]);

    let modulated =
        |p: &mut Builder, x: Val| p.op(Op::RmsNormModulate { eps: 1e-6 }, &[x, norm, scale, shift]);
    let n = modulated(&mut p, x);
    let heads_of = |p: &mut Builder, x: Val, w: Val, rows: usize, n: usize| {
        let y = p.linear(x, w);
        p.reshape(y, &[b, rows, n, d])
    };
    let [q, k] = [(wq, heads), (wk, kv)].map(|(w, count)| {
        let y = heads_of(&mut p, n, w, t, count);
        p.op(Op::NormRope { eps: 1e-6 }, &[y, head_norm, cos, sin])
    });
    let v = heads_of(&mut p, n, wv, t, kv);
    let a = p.attention(q, k, v, Mask::Window(8));
    let a = p.reshape(a, &[b, t, h]);
    let a = p.linear(a, wo);
    let x = p.op(Op::GatedAdd, &[x, a, gate]);

    let n = p.rms_norm(x, norm, 1e-6);
    let q = heads_of(&mut p, n, wq, t, heads);
    let k = heads_of(&mut p, condition, wk, s, kv);
    let v = heads_of(&mut p, condition, wv, s, kv);
    let a = p.attention(q, k, v, Mask::Full);
    let a = p.reshape(a, &[b, t, h]);
    let a = p.linear(a, wo);
    let x = p.add(x, a);

    let n = modulated(&mut p, x);
    let m = p.swiglu(n, wg, wu);
    let m = p.linear(m, wd);
    let x = p.op(Op::GatedAdd, &[x, m, gate]);
    p.output("x", x);
    p.finish().expect("the layer is sound")
}

// One test in this file, so that no other one allocates meanwhile.
#[test]
fn runs_allocate_nothing() {
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    for case in conformance() {
        let mut prepared = Prepared::new(&backend, &case, Form::Plain).expect(&case.name);
        let n = allocations(prepared.ready.as_mut(), &case.scalars);
        assert_eq!(n, 0, "{} allocates {n} times", case.name);
    }
    assert!(ALLOCATIONS.load(SeqCst) > 0, "nothing is counted");
    for math in [Math::F32, Math::Bf16] {
        let program = layer(math);
        let mut random = Random::named("layer");
        let inputs: Vec<(String, Region)> = program
            .vals
            .iter()
            .filter_map(|info| match &info.kind {
                engine::program::ValKind::Input(name) => {
                    let data: Vec<f32> = (0..info.len()).map(|_| random.normal()).collect();
                    let region = Region::from_f32(&backend, &info.shape, &data).expect("memory");
                    Some((name.clone(), region))
                }
                _ => None,
            })
            .collect();
        let ins: Vec<(&str, &Region)> = inputs.iter().map(|(n, r)| (n.as_str(), r)).collect();
        let shape = &program.vals[program.outs[0].1.index()].shape;
        let out = Region::zeros(&backend, shape, DType::F32).expect("memory");
        let mut ready =
            prepare(&backend, &program, &NoWeights, &ins, &[("x", &out)]).expect("prepares");
        let n = allocations(ready.as_mut(), &[]);
        assert_eq!(n, 0, "a layer with {math:?} products allocates {n} times");
        assert!(
            out.read_f32(&backend)
                .expect("is read")
                .iter()
                .all(|x| x.is_finite())
        );
    }
    tokens_allocate_nothing();
}

/// Two rows of the language model, token by token, behind a prompt.
fn tokens_allocate_nothing() {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("goldens/tiny");
    let tree = Checkpoints::open(&tree).expect("there is a tree");
    let backend = CpuBackend::new(2, None).expect("the processor opens");
    let (backend, math) = (Arc::new(backend) as Arc<dyn Backend>, Math::Bf16);
    let lm = LanguageModel::open(&tree, None, Device { backend, math }).expect("the model opens");
    let mut session = lm.session(2, 64).expect("memory");
    for row in 0..2 {
        let fed = session.feed(row, &[1, 2, 3][row..], Head::None, &NoWatch);
        fed.expect("is read");
    }
    session.step(0, &[4, 5], Head::Full).expect("steps");
    let before = ALLOCATIONS.load(SeqCst);
    for token in 0..20 {
        session.step(0, &[token, 7], Head::Full).expect("steps");
    }
    let n = ALLOCATIONS.load(SeqCst) - before;
    assert_eq!(n, 0, "20 tokens allocate {n} times");
}
