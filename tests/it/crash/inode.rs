//! The content of a file, and the part of it that survives a power loss.

/// The number of bytes that a disk writes atomically. Chosen: the smallest size in use.
const SECTOR_BYTES: usize = 512;

/// A file, independent of its names.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) bytes: Vec<u8>,
    /// The content at the last sync.
    pub(super) lasting: Vec<u8>,
    /// The changes since then.
    pub(super) changes: Vec<Change>,
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Inode {
    pub(super) fn change(&mut self, change: Change) {
        change.land(&mut self.bytes);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            change.land(&mut self.lasting);
        }
    }

    /// Some of the changes never reach the disk. They are visible until the power loss, and no later sync writes them.
    pub(super) fn fail_to_sync(&mut self, chance: &mut fastrand::Rng) {
        for change in self.changes.drain(..) {
            change.land_in_part(&mut self.lasting, chance);
        }
    }

    pub(super) fn lose_power(&mut self, chance: &mut fastrand::Rng) {
        let changes = std::mem::take(&mut self.changes);
        if !changes.is_empty() {
            match chance.u8(..4) {
                0 => {}
                1 => changes.iter().for_each(|change| change.land(&mut self.lasting)),
                2 => {
                    let whole = chance.usize(..changes.len());
                    changes[..whole].iter().for_each(|change| change.land(&mut self.lasting));
                    changes[whole].land_in_part(&mut self.lasting, chance);
                }
                _ => changes.iter().for_each(|change| change.land_in_part(&mut self.lasting, chance)),
            }
        }
        self.bytes.clone_from(&self.lasting);
    }
}

impl Change {
    fn land(&self, file: &mut Vec<u8>) {
        match self {
            Change::Length(len) => file.resize(*len, 0),
            Change::Write { offset, bytes } => write(file, *offset, bytes),
        }
    }

    /// Writes the change completely, not at all, or only some of its sectors; the length may change without the bytes.
    fn land_in_part(&self, file: &mut Vec<u8>, chance: &mut fastrand::Rng) {
        match self {
            Change::Length(_) if chance.bool() => self.land(file),
            Change::Length(_) => {}
            Change::Write { offset, bytes } => {
                if chance.bool() {
                    file.resize(file.len().max(offset + bytes.len()), 0);
                }
                let mut at = 0;
                while at < bytes.len() {
                    let end = bytes.len().min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
                    if chance.bool() {
                        write(file, offset + at, &bytes[at..end]);
                    }
                    at = end;
                }
            }
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}
