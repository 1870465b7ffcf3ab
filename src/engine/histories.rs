//! The stored histories of instances at work, shared with readers.
//!
//! duroxide reads an instance's whole history again for every activity it runs, and again for every turn. The
//! records of the latest execution are kept here as they are stored; decoding stays with whoever asks. What is
//! here is committed, and complete from the first event: a turn is added after its commit and before anybody
//! hears of it, so a read that follows an awaited write sees it. How much of it is on the disk is known too.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::buffer::CommitNo;
use crate::rows::Run;

/// How many bytes are kept, records and what holds them; the instance that came first goes first.
const BYTES_MAX: usize = 32 << 20;

/// What an allocation takes beside what it holds, roughly: allocators keep a header and round up.
const ALLOCATION_BYTES: usize = 16;

/// What an entry takes without its id and its runs. The two maps that lead to it are between half full and full.
const ENTRY_BYTES: usize =
    2 * (size_of::<(Arc<str>, Entry)>() + size_of::<(u64, Arc<str>)>()) + MARKS_BYTES + 3 * ALLOCATION_BYTES;

/// What the numbers of the commits take with which it became durable: the first few there is room for. More are in it
/// for as long as an fsync takes.
const MARKS_BYTES: usize = 4 * size_of::<(CommitNo, usize)>();

/// What a run takes without its record: a slot in the entry, not counted here, points to the two counts of an
/// `Arc` and the run, which points to the record.
const RUN_BYTES: usize = ALLOCATION_BYTES + 2 * size_of::<usize>() + size_of::<Run>() + ALLOCATION_BYTES;

/// A change that takes effect when its batch is committed.
pub(crate) enum HistoryChange {
    /// A turn was acknowledged. `complete` says that it is all its execution has so far.
    Add { instance: Arc<str>, execution: u64, runs: Vec<Arc<Run>>, complete: bool },
    /// The whole history of the latest execution was read.
    Fill { instance: Arc<str>, execution: u64, runs: Vec<Arc<Run>> },
    /// Nothing is known any more.
    Forget { instance: Arc<str> },
}

impl HistoryChange {
    /// Whether the rows of the instance are changed, and not only read.
    pub(super) fn writes(&self) -> bool {
        !matches!(self, HistoryChange::Fill { .. })
    }

    pub(super) fn instance(&self) -> &Arc<str> {
        match self {
            HistoryChange::Add { instance, .. }
            | HistoryChange::Fill { instance, .. }
            | HistoryChange::Forget { instance } => instance,
        }
    }
}

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Histories {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<Arc<str>, Entry>,
    /// In the order in which they came.
    order: BTreeMap<u64, Arc<str>>,
    next_place: u64,
    bytes: usize,
}

struct Entry {
    execution: u64,
    runs: Vec<Arc<Run>>,
    /// How many of the runs are durable with a commit, oldest first; what had been durable by the latest change needs
    /// one alone.
    durable_with: VecDeque<(CommitNo, usize)>,
    bytes: usize,
    place: u64,
}

impl Entry {
    /// Notes that all there is now is durable with this commit.
    fn note(&mut self, no: CommitNo, durable: CommitNo) {
        while self.durable_with.get(1).is_some_and(|(no, _)| *no <= durable) {
            self.durable_with.pop_front();
        }
        self.durable_with.push_back((no, self.runs.len()));
    }

    fn durable_len(&self, durable: CommitNo) -> usize {
        let reached = self.durable_with.iter().take_while(|(no, _)| *no <= durable);
        reached.last().map_or(0, |(_, runs)| *runs)
    }
}

impl Histories {
    /// The history of an execution, the latest if none is named; `None` if it has to be read from the file.
    pub(crate) fn get(&self, instance: &str, execution: Option<u64>) -> Option<(u64, Vec<Arc<Run>>)> {
        let inner = self.inner.lock();
        let entry = inner.entries.get(instance)?;
        let wanted = execution.is_none_or(|execution| execution == entry.execution);
        wanted.then(|| (entry.execution, entry.runs.clone()))
    }

    /// What of the latest execution is durable, from its first event on; `None` if that is nothing, or not known.
    pub(crate) fn durable(&self, instance: &str, durable: CommitNo) -> Option<(u64, Vec<Arc<Run>>)> {
        let inner = self.inner.lock();
        let entry = inner.entries.get(instance)?;
        let runs = entry.runs.get(..entry.durable_len(durable)).filter(|runs| !runs.is_empty())?;
        Some((entry.execution, runs.to_vec()))
    }

    #[cfg(feature = "test-hooks")]
    pub(crate) fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }

    /// What the commit of this number has changed, while everything up to `durable` is on the disk.
    pub(super) fn apply(
        &self,
        changes: impl Iterator<Item = HistoryChange>,
        no: CommitNo,
        durable: CommitNo,
    ) {
        let mut inner = self.inner.lock();
        for change in changes {
            match change {
                HistoryChange::Add { instance, execution, runs, complete } => {
                    inner.add(instance, execution, runs, complete, (no, durable));
                }
                HistoryChange::Fill { instance, execution, runs } => inner.put(instance, execution, runs, no),
                HistoryChange::Forget { instance } => inner.remove(&instance),
            }
        }
        inner.evict();
    }
}

/// What these runs take, without the slots that point to them.
fn held_bytes(runs: &[Arc<Run>]) -> usize {
    runs.iter().map(|run| RUN_BYTES + run.record.capacity()).sum()
}

impl Inner {
    fn add(
        &mut self,
        instance: Arc<str>,
        execution: u64,
        runs: Vec<Arc<Run>>,
        complete: bool,
        (no, durable): (CommitNo, CommitNo),
    ) {
        match self.entries.get_mut(&instance) {
            Some(entry) if entry.execution == execution => {
                let (slots, added) = (entry.runs.capacity(), held_bytes(&runs));
                // The runtime appends; a gap in the ids may be filled later all the same. What is there is in order.
                let last = entry.runs.last().map(|run| run.first_event);
                let in_order = last.into_iter().chain(runs.iter().map(|run| run.first_event)).is_sorted();
                entry.runs.extend(runs);
                if !in_order {
                    entry.runs.sort_by_key(|run| run.first_event);
                    // What is durable is no longer what comes first.
                    entry.durable_with.clear();
                }
                entry.note(no, durable);
                let bytes = added + (entry.runs.capacity() - slots) * size_of::<Arc<Run>>();
                entry.bytes += bytes;
                self.bytes += bytes;
            }
            // A late turn of an execution before the latest.
            Some(entry) if entry.execution > execution => {}
            _ if complete => self.put(instance, execution, runs, no),
            // The latest execution is another one now, and not all of it is known.
            _ => self.remove(&instance),
        }
    }

    fn put(&mut self, instance: Arc<str>, execution: u64, runs: Vec<Arc<Run>>, no: CommitNo) {
        self.remove(&instance);
        let slots = runs.capacity() * size_of::<Arc<Run>>();
        let bytes = ENTRY_BYTES + 2 * size_of::<usize>() + instance.len() + slots + held_bytes(&runs);
        let place = self.next_place;
        self.next_place += 1;
        self.bytes += bytes;
        self.order.insert(place, Arc::clone(&instance));
        let durable_with = VecDeque::from([(no, runs.len())]);
        self.entries.insert(instance, Entry { execution, runs, durable_with, bytes, place });
    }

    fn remove(&mut self, instance: &str) {
        if let Some(entry) = self.entries.remove(instance) {
            self.order.remove(&entry.place);
            self.bytes -= entry.bytes;
        }
    }

    fn evict(&mut self) {
        while self.bytes > BYTES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first_event: u64) -> Arc<Run> {
        Arc::new(Run { first_event, last_event: first_event, record: vec![0; 10] })
    }

    fn kept(histories: &Histories) -> (usize, usize) {
        let inner = histories.inner.lock();
        let counted: usize = inner.entries.values().map(|entry| entry.bytes).sum();
        assert_eq!(inner.bytes, counted, "what is kept is counted once");
        (inner.entries.len(), inner.entries.values().map(|entry| entry.runs.len()).sum())
    }

    /// Many instances with next to no history each, and one with very many turns.
    #[test]
    fn short_histories_and_short_turns_are_counted_with_all_they_take() {
        let least_run = size_of::<Arc<Run>>() + 2 * size_of::<usize>() + size_of::<Run>() + 10;
        let least_entry = size_of::<(Arc<str>, Entry)>() + size_of::<(u64, Arc<str>)>() + "instance-1".len();
        let histories = Histories::default();
        let fill = |n: u64| HistoryChange::Fill {
            instance: format!("instance-{n}").into(),
            execution: 1,
            runs: vec![run(1)],
        };
        histories.apply((0..120_000).map(fill), 0, 0);
        let (entries, runs) = kept(&histories);
        assert_eq!(entries, runs);
        assert!(entries * (least_entry + least_run) <= BYTES_MAX, "{entries} are kept");
        assert!(entries * 4 * (least_entry + least_run) > BYTES_MAX, "{entries} are kept");

        let histories = Histories::default();
        let add = |first| HistoryChange::Add {
            instance: "instance".into(),
            execution: 1,
            runs: (first..first + 16).map(run).collect(),
            complete: first == 0,
        };
        let fits = (BYTES_MAX / 3 / least_run) as u64;
        histories.apply((0..fits).step_by(16).map(add), 0, 0);
        assert_eq!(kept(&histories).0, 1);
        let too_many = (BYTES_MAX / least_run) as u64;
        histories.apply((fits..too_many).step_by(16).map(add), 0, 0);
        assert_eq!(kept(&histories), (0, 0), "it alone is too much");
    }

    #[test]
    fn what_is_durable_comes_first_and_is_known_for_each_commit() {
        let histories = Histories::default();
        let add = |first| HistoryChange::Add {
            instance: "instance".into(),
            execution: 1,
            runs: vec![run(first)],
            complete: first == 1,
        };
        let durable = |no| histories.durable("instance", no).map(|(_, runs)| runs.len());
        histories.apply([add(1)].into_iter(), 3, 0);
        histories.apply([add(2)].into_iter(), 5, 2);
        assert_eq!([2, 3, 4, 5, 6].map(durable), [None, Some(1), Some(1), Some(2), Some(2)]);
        histories.apply([add(3)].into_iter(), 6, 5);
        assert_eq!([5, 6].map(durable), [Some(2), Some(3)]);
        // A gap is filled: until that is durable nobody knows what of the rest comes before it.
        histories.apply([add(10)].into_iter(), 7, 6);
        histories.apply([add(9)].into_iter(), 8, 7);
        assert_eq!([7, 8].map(durable), [None, Some(5)]);
    }
}
