//! What the comparisons run on: the device and the tree's networks, loaded as generation loads
//! them.

use super::golden::Golden;
use super::report::{Kind, Reporter};
use engine::backend::{Backend, Device, HostData, HostVec, Outputs, Weights, run_once};
use engine::program::{Math, Program};
use engine::song::language_model::LanguageModel;
use engine::song::loaded::{LoadedDit, LoadedText, LoadedVae};
use engine::weights::Checkpoints;
use engine::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Device, arithmetic and networks of a run.
pub struct Bench {
    /// The device.
    pub backend: Arc<dyn Backend>,
    /// How products treat their operands.
    pub math: Math,
    root: PathBuf,
    text: RefCell<Option<Rc<LoadedText>>>,
    lm: RefCell<Option<Rc<LanguageModel>>>,
    dits: RefCell<HashMap<String, Rc<LoadedDit>>>,
    vaes: RefCell<HashMap<String, Rc<LoadedVae>>>,
}

impl Bench {
    /// A bench over the tree at `root`; loads nothing yet.
    pub fn new(backend: Arc<dyn Backend>, math: Math, root: &Path) -> Self {
        Bench {
            backend,
            math,
            root: root.to_path_buf(),
            text: RefCell::default(),
            lm: RefCell::default(),
            dits: RefCell::default(),
            vaes: RefCell::default(),
        }
    }

    /// The golden tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of the tiny checkpoints.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("tiny")
    }

    /// A file of the stages.
    pub fn stage(&self, path: &str) -> Result<Golden> {
        let file = self.root.join("stages").join(path);
        Golden::read(&file).map_err(|e| Error::Corrupt(format!("{path} {e}")))
    }

    /// The device.
    pub fn device(&self) -> Device {
        Device {
            backend: self.backend.clone(),
            math: self.math,
        }
    }

    /// The text encoder.
    pub fn text(&self) -> Result<Rc<LoadedText>> {
        if let Some(text) = &*self.text.borrow() {
            return Ok(text.clone());
        }
        let tree = Checkpoints::open(&self.checkpoints())?;
        let text = Rc::new(LoadedText::open(&tree, self.math)?);
        *self.text.borrow_mut() = Some(text.clone());
        Ok(text)
    }

    /// The language model.
    pub fn language_model(&self) -> Result<Rc<LanguageModel>> {
        if let Some(lm) = &*self.lm.borrow() {
            return Ok(lm.clone());
        }
        let tree = Checkpoints::open(&self.checkpoints())?;
        let lm = LanguageModel::open(&tree, None, self.device())?;
        let lm = Rc::new(lm);
        *self.lm.borrow_mut() = Some(lm.clone());
        Ok(lm)
    }

    /// Directory name of the diffusion model that the folder `model` of the stages is about:
    /// `acestep-v15-MODEL`, else its turbo variant.
    pub fn model_name(&self, model: &str) -> Result<String> {
        let tree = Checkpoints::open(&self.checkpoints())?;
        let names = [
            format!("acestep-v15-{model}"),
            format!("acestep-v15-{model}-turbo"),
        ];
        let found = names
            .iter()
            .find(|n| tree.dits().iter().any(|d| d.name == **n));
        found.cloned().ok_or_else(|| {
            Error::Missing(format!("tiny has neither {} nor {}", names[0], names[1]))
        })
    }

    /// The diffusion model of a folder of the stages.
    pub fn dit(&self, model: &str) -> Result<Rc<LoadedDit>> {
        if let Some(dit) = self.dits.borrow().get(model) {
            return Ok(dit.clone());
        }
        let name = self.model_name(model)?;
        let path = self.checkpoints().join(&name);
        let dit = Rc::new(LoadedDit::open(&name, &path, self.math)?);
        self.dits
            .borrow_mut()
            .insert(model.to_string(), dit.clone());
        Ok(dit)
    }

    /// An autoencoder by its directory.
    pub fn vae(&self, name: &str) -> Result<Rc<LoadedVae>> {
        if let Some(vae) = self.vaes.borrow().get(name) {
            return Ok(vae.clone());
        }
        let vae = Rc::new(LoadedVae::open(&self.checkpoints().join(name), self.math)?);
        self.vaes.borrow_mut().insert(name.to_string(), vae.clone());
        Ok(vae)
    }

    /// Runs a program once and returns its outputs and everything it taps.
    pub fn run(
        &self,
        mut program: Program,
        weights: &dyn Weights,
        inputs: &[(&str, HostData)],
        scalars: &[f32],
    ) -> Result<Outputs> {
        program.expose();
        for (name, data) in inputs {
            let given = match data {
                HostData::F32(d) => d.len(),
                HostData::I32(d) => d.len(),
            };
            if let Some(wanted) = input_len(&program, name)
                && wanted != given
            {
                return Err(Error::Corrupt(format!(
                    "{name} has {given} elements, {wanted} follow from config.json and the other \
                     tensors"
                )));
            }
        }
        run_once(&*self.backend, &program, weights, inputs, scalars)
    }
}

fn input_len(program: &Program, name: &str) -> Option<usize> {
    use engine::program::ValKind;
    let found = program
        .vals
        .iter()
        .find(|v| matches!(&v.kind, ValKind::Input(n) | ValKind::State(n) if n == name));
    found.map(|v| v.len())
}

/// Compares every output that the file has a tensor for.
pub fn compare_known(g: &Golden, outputs: &Outputs, r: &mut Reporter, kind: Kind) -> Result<()> {
    for (name, _, data) in outputs.iter().filter(|(name, _, _)| g.has(name)) {
        match data {
            HostVec::F32(ours) => r.compare(name, ours, &g.array(name)?, kind),
            HostVec::I32(ours) => {
                let ours: Vec<i64> = ours.iter().map(|i| i64::from(*i)).collect();
                r.exact(name, &ours, &g.integers(name)?);
            }
        }
    }
    Ok(())
}

/// Ids that index a table of `vocabulary` rows.
pub fn ids_within(ids: &[i64], vocabulary: usize, name: &str) -> Result<Vec<i32>> {
    match ids.iter().find(|id| !(0..vocabulary as i64).contains(*id)) {
        None => Ok(ids.iter().map(|id| *id as i32).collect()),
        Some(id) => Err(Error::Corrupt(format!(
            "{name} holds {id}, there are {vocabulary}"
        ))),
    }
}
