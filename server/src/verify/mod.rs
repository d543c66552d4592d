//! Comparison of every stage with a tree of reference tensors.
//!
//! Each stage runs through the programs and loops that generation runs: a wrong constant in one
//! kernel breaks both. Sizes come from the tree's configurations and tensors, cases from the
//! headers of its files; only the layout of paths is fixed.

mod bench;
mod encoders;
mod forward;
mod golden;
mod grammar;
mod guidance;
mod host;
mod kinds;
mod language_model;
mod refusals;
mod repaint;
mod report;
mod sampler;
mod song;
mod tokens;
mod vae;

pub use kinds::{ModelStage, Stage, classify};
pub use report::{Distance, Kind, Limit, Line, Totals};

use bench::Bench;
use engine::backend::Backend;
use engine::program::Math;
use engine::{Error, Result};
use golden::Golden;
use refusals::Refusals;
use report::Reporter;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to compare, and on what.
#[derive(Clone)]
pub struct Options {
    /// The tree.
    pub goldens: PathBuf,
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// How products treat their operands.
    pub math: Math,
    /// Only files whose path contains this.
    pub filter: Option<String>,
    /// Files of capabilities to come are listed instead of failed.
    pub built_only: bool,
}

/// Compares every file of the tree and passes each line of the report to `sink`.
///
/// # Errors
/// [`Error::Missing`] when there is no tree; what is wrong within the tree fails its file instead.
pub fn verify(options: &Options, sink: &mut dyn FnMut(&Line)) -> Result<Totals> {
    let files = Files::of(&options.goldens)?;
    let backend = Arc::new(Refusals::of(options.backend.clone()));
    let bench = Bench::new(backend.clone(), options.math, &options.goldens);
    let mut r = Reporter::new(options.math, sink);
    let wanted = |path: &str| {
        options
            .filter
            .as_ref()
            .is_none_or(|f| path.contains(f.as_str()))
    };
    let faulty = files.faults.iter().map(|(path, _)| path);
    let mut paths = faulty.chain(&files.stages).chain(&files.training);
    if !paths.any(|p| wanted(p)) {
        return Err(Error::Request(match &options.filter {
            Some(f) => format!(
                "no file of {} has {f:?} in its path: nothing would be compared",
                options.goldens.display()
            ),
            None => format!("{} holds no golden file", options.goldens.display()),
        }));
    }
    for fault in &files.faults {
        if wanted(&fault.0) {
            r.file(&fault.0);
            r.fault(&fault.1);
        }
    }
    for path in files.stages.iter().filter(|p| wanted(p)) {
        r.file(path);
        match classify(path) {
            None => r.fault("belongs to no known stage"),
            Some(Stage::NotBuilt(what)) => not_built(&mut r, what, options.built_only),
            Some(_) if !files.root.join("stages").join(path).is_file() => {
                r.fault("is missing, MANIFEST.json lists it");
            }
            Some(stage) => {
                let faults = files.manifest_faults(path);
                faults.iter().for_each(|why| r.fault(why));
                let (not_built, lines) = (r.totals.not_built, r.lines());
                match compare(&bench, path, &stage, &mut r) {
                    Err(e) => r.fault(e.to_string()),
                    Ok(()) if r.totals.not_built > not_built && !options.built_only => {
                        r.fault("is of a capability that is not built");
                    }
                    Ok(()) if r.lines() == lines => {
                        r.fault("holds no tensor that this version knows: nothing was compared");
                    }
                    Ok(()) => {}
                }
            }
        }
    }
    for path in files.training.iter().filter(|p| wanted(p)) {
        r.file(path);
        not_built(&mut r, kinds::TRAINING, options.built_only);
    }
    Ok(Totals {
        by_definition: backend.names(),
        ..r.totals
    })
}

fn not_built(r: &mut Reporter, what: &'static str, built_only: bool) {
    r.not_built(what);
    if !built_only {
        r.fault("is of a capability that is not built");
    }
}

fn compare(b: &Bench, path: &str, stage: &Stage, r: &mut Reporter) -> Result<()> {
    let file = b.root().join("stages").join(path);
    match stage {
        Stage::Schedules => return host::schedules(&file, r),
        Stage::Tokenizer => return host::tokenizer(b, &file, r),
        Stage::Grammar(vocabulary) => return grammar::grammar(b, &file, *vocabulary, r),
        _ => {}
    }
    let g = Golden::read(&file)?;
    match stage {
        Stage::TextEncoder => encoders::text(b, &g, r),
        Stage::Random => host::random(&g, r),
        Stage::Guidance => guidance::guidance(b, &g, r),
        Stage::Dcw => guidance::dcw(b, &g, r),
        Stage::Repaint => repaint::operations(b, &g, r),
        Stage::Sinusoid => forward::sinusoid(b, &g, r),
        Stage::Packing => encoders::packing(b, &g, r),
        Stage::VaeDecode { vae: name } => vae::decode(b, &g, r, &*b.vae(name)?),
        Stage::VaeEncode { vae: name } => vae::encode(b, &g, r, &*b.vae(name)?),
        Stage::VaeTiled { vae: name } => vae::tiled(b, &g, r, &*b.vae(name)?),
        Stage::VaeWeightNorm { vae: name } => vae::weight_norm(b, &g, r, &*b.vae(name)?),
        Stage::LmPrompt => language_model::prompt(b, &g, r),
        Stage::LmPair => language_model::guided_pair(b, &g, r),
        Stage::TokenSampling => grammar::sampling(&g, r),
        Stage::EndToEnd => song::end_to_end(b, &g, r),
        Stage::Model { model, stage } => compare_model(b, &g, r, model, *stage),
        Stage::Inputs => {
            for name in g.names() {
                g.array(name)?;
            }
            r.inputs();
            Ok(())
        }
        Stage::Schedules | Stage::Tokenizer | Stage::Grammar(_) | Stage::NotBuilt(_) => Ok(()),
    }
}

fn compare_model(
    b: &Bench,
    g: &Golden,
    r: &mut Reporter,
    model: &str,
    stage: ModelStage,
) -> Result<()> {
    let dit = b.dit(model)?;
    let other = |name: &str| b.stage(&format!("{model}/{name}.safetensors"));
    match stage {
        ModelStage::Lyric => encoders::lyric(b, g, r, &dit),
        ModelStage::Timbre => encoders::timbre(b, g, r, &dit),
        ModelStage::Condition => encoders::condition(b, g, r, &dit),
        ModelStage::AudioTokenizer => tokens::audio_tokenizer_stage(b, g, r, &dit),
        ModelStage::Forward => forward::forward(b, g, r, &dit),
        ModelStage::TrajectoryConditions => {
            encoders::trajectory_conditions(b, g, r, &dit, &other("traj_inputs")?)
        }
        ModelStage::Trajectory => {
            let (inputs, conditions) = (other("traj_inputs")?, other("traj_conditions")?);
            sampler::trajectory(b, g, r, &dit, &inputs, &conditions)
        }
    }
}

/// Files of a tree: those on disk and those its manifest lists.
struct Files {
    root: PathBuf,
    /// Paths below `stages`.
    stages: BTreeSet<String>,
    /// Files at the top that belong to training.
    training: BTreeSet<String>,
    manifest: BTreeMap<String, serde_json::Value>,
    /// Files that are wrong as such, with the reason.
    faults: Vec<(String, String)>,
}

impl Files {
    fn of(root: &Path) -> Result<Self> {
        let stages = root.join("stages");
        if !stages.is_dir() {
            return Err(Error::Missing(format!(
                "{} is not a golden tree: it has no folder stages; name the folder that holds \
                 stages and tiny",
                root.display()
            )));
        }
        let mut files = Files {
            root: root.to_path_buf(),
            stages: BTreeSet::new(),
            training: BTreeSet::new(),
            manifest: BTreeMap::new(),
            faults: Vec::new(),
        };
        files.top(root);
        files.walk(&stages, "");
        files.read_manifest(&stages.join("MANIFEST.json"));
        Ok(files)
    }

    /// Files beside the folders of the tree.
    fn top(&mut self, root: &Path) {
        for (name, path) in self.entries(root, "") {
            if path.is_dir() || is_documentation(&name) {
                continue;
            }
            if name.starts_with("training_") {
                self.training.insert(name);
            } else {
                self.faults.push((name, "belongs to no known stage".into()));
            }
        }
    }

    fn walk(&mut self, dir: &Path, prefix: &str) {
        for (name, path) in self.entries(dir, prefix) {
            let below = format!("{prefix}{name}");
            if path.is_dir() {
                self.walk(&path, &format!("{below}/"));
            } else if below != "MANIFEST.json" && !is_documentation(&name) {
                self.stages.insert(below);
            }
        }
    }

    fn entries(&mut self, dir: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
        match std::fs::read_dir(dir) {
            Ok(list) => list
                .flatten()
                .map(|e| (e.file_name().to_string_lossy().into_owned(), e.path()))
                .filter(|(name, _)| !name.starts_with('.'))
                .collect(),
            Err(e) => {
                let name = if prefix.is_empty() { "stages" } else { prefix };
                self.faults
                    .push((name.into(), format!("cannot be read: {e}")));
                Vec::new()
            }
        }
    }

    fn read_manifest(&mut self, path: &Path) {
        let name = || "MANIFEST.json".to_string();
        if !path.exists() {
            let why = "is missing: files that are gone would go unnoticed";
            self.faults.push((name(), why.into()));
            return;
        }
        match golden::json(path) {
            Ok(serde_json::Value::Object(entries)) => {
                self.stages.extend(entries.keys().cloned());
                self.manifest = entries.into_iter().collect();
            }
            Ok(_) => self.faults.push((name(), "is not a list of files".into())),
            Err(e) => self.faults.push((name(), e.to_string())),
        }
    }

    /// Tensors the manifest promises that the file lacks or has in another shape.
    fn manifest_faults(&self, path: &str) -> Vec<String> {
        let tensors = self
            .manifest
            .get(path)
            .and_then(|e| e.get("tensors")?.as_object());
        let Some(tensors) = tensors.filter(|_| path.ends_with(".safetensors")) else {
            return Vec::new();
        };
        // A file that cannot be read is reported when it is compared.
        let Ok(g) = Golden::read(&self.root.join("stages").join(path)) else {
            return Vec::new();
        };
        let mut faults = Vec::new();
        for (name, entry) in tensors {
            let listed = entry.get("shape").and_then(serde_json::Value::as_array);
            let listed: Option<Vec<usize>> =
                listed.and_then(|s| s.iter().map(|n| n.as_u64().map(|n| n as usize)).collect());
            match (g.shape(name), listed) {
                (None, _) => faults.push(format!("tensor {name} is missing")),
                (Some(found), Some(listed)) if found != listed => faults.push(format!(
                    "tensor {name} has shape {found:?}, MANIFEST.json says {listed:?}"
                )),
                _ => {}
            }
        }
        faults
    }
}

fn is_documentation(name: &str) -> bool {
    name.ends_with(".md")
}
