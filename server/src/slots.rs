//! The slots of diffusion models: up to three names, of which the first is the primary model's.

/// Number of slots.
pub const SLOTS: usize = 3;

/// Names of the models by slot. A slot that had no name at start stays without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slots([Option<String>; SLOTS]);

impl Slots {
    /// The primary model and up to two others.
    pub fn new(primary: String, second: Option<String>, third: Option<String>) -> Self {
        Slots([Some(primary), second, third])
    }

    /// Name of the primary model.
    pub fn primary(&self) -> &str {
        self.0[0].as_deref().unwrap_or_default()
    }

    /// Every name once, the primary one first.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for name in self.0.iter().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Name in a slot, which counts from 1; `None` when the slot is not in use.
    pub fn get(&self, slot: usize) -> Option<&str> {
        self.0.get(slot.checked_sub(1)?)?.as_deref()
    }

    /// Puts a name into a slot that is in use. Returns the name before when no slot has it any
    /// more.
    pub fn set(&mut self, slot: usize, name: &str) -> Option<String> {
        let place = self.0.get_mut(slot.checked_sub(1)?)?.as_mut()?;
        let before = std::mem::replace(place, name.to_owned());
        Some(before).filter(|before| self.0.iter().flatten().all(|n| n != before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_change_and_unused_ones_stay_unused() {
        let mut slots = Slots::new("a".into(), None, Some("a".into()));
        assert_eq!(slots.names(), ["a"]);
        assert_eq!(
            [0, 1, 2, 3, 4].map(|n| slots.get(n).is_some()),
            [false, true, false, true, false]
        );
        assert_eq!(slots.set(2, "b"), None);
        assert_eq!(slots.set(1, "b"), None, "a is still in slot 3");
        assert_eq!((slots.primary(), slots.names().len()), ("b", 2));
        assert_eq!(slots.set(3, "b"), Some("a".into()));
        assert_eq!(slots.set(3, "b"), None);
        assert_eq!(slots.names(), ["b"]);
    }
}
