//! The names of files, and those of them that survive a power loss.

use std::collections::BTreeMap;

/// All names of the disk, with their folders.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(pub(super) BTreeMap<String, usize>);

#[derive(Debug, Clone)]
pub(super) enum NameChange {
    Create { name: String, inode: usize },
    Rename { from: String, to: String, inode: usize },
    Remove { name: String },
}

impl Names {
    pub(super) fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }

    pub(super) fn apply(&mut self, change: &NameChange) {
        match change {
            NameChange::Create { name, inode } => _ = self.0.insert(name.clone(), *inode),
            NameChange::Remove { name } => _ = self.0.remove(name),
            NameChange::Rename { from, to, inode } => {
                if self.get(from) == Some(*inode) {
                    self.0.remove(from);
                }
                self.0.insert(to.clone(), *inode);
            }
        }
    }
}

impl NameChange {
    pub(super) fn folder(&self) -> &str {
        match self {
            NameChange::Create { name, .. } | NameChange::Rename { to: name, .. } | NameChange::Remove { name } => folder(name),
        }
    }
}

pub(super) fn folder(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The changes of names that survive a power loss: in each folder the first ones, or each independently.
pub(super) fn landed(changes: Vec<NameChange>, chance: &mut fastrand::Rng) -> Vec<NameChange> {
    if chance.bool() {
        return changes.into_iter().filter(|_| chance.bool()).collect();
    }
    let mut ended: Vec<String> = Vec::new();
    let mut landed = Vec::new();
    for change in changes {
        if ended.iter().any(|folder| folder == change.folder()) {
            continue;
        }
        if chance.u8(..3) == 0 {
            ended.push(change.folder().to_owned());
        } else {
            landed.push(change);
        }
    }
    landed
}
