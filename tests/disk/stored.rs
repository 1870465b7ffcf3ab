//! One file of the simulated disk: what is durable, what a reader sees, and what lies between the two.
//!
//! The unit that survives a power loss or does not is a sector. A sector is at any instant what the page cache
//! made of it, so of the contents it went through since the last sync any single one may be found, each sector
//! on its own: that is reordering and tearing at once. The length is metadata and goes its own way too.
//! Rejected: dropping single writes inside a sector. The cache applies them in order before the disk sees any.

use std::collections::BTreeMap;

use super::random::Random;

/// What the disk writes in one piece.
pub(crate) const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

struct Change {
    /// The number of the I/O operation that made it.
    operation: u64,
    kind: Kind,
}

enum Kind {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { length: usize },
}

/// Which unsynced changes survive.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survival {
    Nothing,
    Everything,
    /// Everything before an operation, of that one some sectors, and nothing after it.
    Before(u64),
    /// Each sector on its own: the newest content with this chance in percent, else any from before.
    Scattered(u64),
}

#[derive(Default)]
pub(crate) struct Stored {
    durable: Vec<u8>,
    content: Vec<u8>,
    unsynced: Vec<Change>,
}

impl Stored {
    pub(crate) fn new(durable: Vec<u8>) -> Self {
        Self { content: durable.clone(), durable, unsynced: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.content.len()
    }

    /// Fills `into`, with zeros behind the end; tells whether all of it was there.
    pub(crate) fn read(&self, at: usize, into: &mut [u8]) -> bool {
        let there = self.content.get(at..).unwrap_or_default();
        let length = there.len().min(into.len());
        into[..length].copy_from_slice(&there[..length]);
        into[length..].fill(0);
        length == into.len()
    }

    pub(crate) fn write(&mut self, operation: u64, at: usize, bytes: &[u8]) {
        let kind = Kind::Write { at, bytes: bytes.to_vec() };
        apply(&mut self.content, &kind);
        self.unsynced.push(Change { operation, kind });
    }

    pub(crate) fn truncate(&mut self, operation: u64, length: usize) {
        let kind = Kind::Truncate { length };
        apply(&mut self.content, &kind);
        self.unsynced.push(Change { operation, kind });
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            apply(&mut self.durable, &change.kind);
        }
    }

    /// What Linux does when an fsync fails: the pages are taken for clean, so readers go on seeing them and
    /// no later sync writes them.
    pub(crate) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// What is on the disk when the power comes back.
    pub(crate) fn survivor(&self, survival: Survival, random: &mut Random) -> Vec<u8> {
        let mut found = self.durable.clone();
        match survival {
            Survival::Nothing => {}
            Survival::Everything => self.unsynced.iter().for_each(|change| apply(&mut found, &change.kind)),
            Survival::Before(operation) => {
                let before = self.unsynced.iter().take_while(|change| change.operation < operation);
                before.for_each(|change| apply(&mut found, &change.kind));
                let torn = self.unsynced.iter().find(|change| change.operation == operation);
                if let Some(change) = torn {
                    tear(&mut found, &change.kind, random);
                }
            }
            Survival::Scattered(chance) => return self.scattered(chance, random),
        }
        found
    }

    fn scattered(&self, chance: u64, random: &mut Random) -> Vec<u8> {
        let mut now = self.durable.clone();
        let mut lengths = vec![now.len()];
        let mut versions: BTreeMap<usize, Vec<Sector>> = BTreeMap::new();
        for change in &self.unsynced {
            // Cutting a file writes no sector: it is cut as a whole, or not. (With sectors of a log zeroed one by one
            // the test found a state that no file system leaves: half a log over a database that had all of it.)
            let touched = match &change.kind {
                Kind::Write { at, bytes } => sectors(*at, at + bytes.len()),
                Kind::Truncate { .. } => 0..0,
            };
            for sector in touched.clone() {
                versions.entry(sector).or_insert_with(|| vec![sector_of(&now, sector)]);
            }
            apply(&mut now, &change.kind);
            for sector in touched {
                versions.entry(sector).or_default().push(sector_of(&now, sector));
            }
            lengths.push(now.len());
        }
        let length = pick(&lengths, chance, random);
        let mut found = self.durable.clone();
        // A file that is longer than what reached it shows zeros, or what was on the disk before.
        let filling = if random.percent(50) { 0 } else { random.next() as u8 };
        found.resize(length.max(found.len()), filling);
        for (sector, versions) in versions {
            let never_there = sector * SECTOR_BYTES >= self.durable.len();
            let chosen = pick_index(versions.len(), chance, random);
            if !(never_there && chosen == 0) {
                put_sector(&mut found, sector, &versions[chosen]);
            }
        }
        found.truncate(length);
        found
    }
}

fn apply(content: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::Write { at, bytes } => {
            if content.len() < *at {
                content.resize(*at, 0);
            }
            let (over, behind) = bytes.split_at(bytes.len().min(content.len() - at));
            content[*at..at + over.len()].copy_from_slice(over);
            content.extend_from_slice(behind);
        }
        Kind::Truncate { length } => content.truncate(*length),
    }
}

/// Some of the sectors of one change.
fn tear(content: &mut Vec<u8>, kind: &Kind, random: &mut Random) {
    let Kind::Write { at, bytes } = kind else {
        if random.percent(50) {
            apply(content, kind);
        }
        return;
    };
    for sector in sectors(*at, at + bytes.len()) {
        if random.percent(50) {
            let from = (sector * SECTOR_BYTES).max(*at);
            let to = ((sector + 1) * SECTOR_BYTES).min(at + bytes.len());
            apply(content, &Kind::Write { at: from, bytes: bytes[from - at..to - at].to_vec() });
        }
    }
}

fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
    from / SECTOR_BYTES..to.max(from).div_ceil(SECTOR_BYTES)
}

fn sector_of(content: &[u8], sector: usize) -> Sector {
    let mut bytes = [0; SECTOR_BYTES];
    let there = content.get(sector * SECTOR_BYTES..).unwrap_or_default();
    let length = there.len().min(SECTOR_BYTES);
    bytes[..length].copy_from_slice(&there[..length]);
    bytes
}

/// Only as far as the file goes.
fn put_sector(content: &mut [u8], sector: usize, bytes: &Sector) {
    let Some(room) = content.get_mut(sector * SECTOR_BYTES..) else { return };
    let length = room.len().min(SECTOR_BYTES);
    room[..length].copy_from_slice(&bytes[..length]);
}

fn pick_index(count: usize, chance: u64, random: &mut Random) -> usize {
    if random.percent(chance) { count - 1 } else { random.below(count) }
}

fn pick(of: &[usize], chance: u64, random: &mut Random) -> usize {
    of[pick_index(of.len(), chance, random)]
}
