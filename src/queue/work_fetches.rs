//! Fetches that wait for an activity, found by what they may take.
//!
//! The rule is a walk: the fetches in the order in which they were made, each takes the oldest item it may
//! have. Walking all of them for every batch would cost what waits. Between two walks, though, a fetch and an
//! item that did not fit still do not fit, unless the item has changed its lane; so what is looked at is only
//! the fetches that are new, and for each class that got items the oldest fetch that may take one.
//!
//! A fetch that takes no part in sessions is told "nothing" soon while activities wait that only a fetch with
//! a session may have: a worker at its cap of sessions asks without one, and its next fetch may be with one.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use duroxide::providers::TagFilter;

use super::lanes::{Class, Lane};
use super::{FetchNo, Parked, Work, WorkId};

/// How long a fetch without a session waits while activities of sessions wait: duroxide's own default of how
/// often an idle worker asks.
const SESSIONLESS_POLL_MAX: Duration = Duration::from_millis(100);

/// What a fetch may be given.
#[derive(Debug)]
pub(crate) struct Wants {
    /// The worker, if it takes part in sessions.
    pub(crate) owner: Option<Arc<str>>,
    pub(crate) tags: TagFilter,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct WorkFetches<F> {
    parked: Parked<(Wants, F)>,
    /// Those that have not been matched since they were made. They are in no index yet.
    unseen: BTreeSet<FetchNo>,
    without_session: ByTags,
    with_session: ByTags,
    by_owner: HashMap<Arc<str>, ByTags>,
    /// Those without a session that may wait as long as they asked for.
    patient: ByTags,
    /// Classes that got items, each with the oldest fetch that may take one.
    candidates: BTreeSet<(FetchNo, Class)>,
    /// The class of the candidate that was served last, which may have more.
    served: Option<Class>,
    /// How many fetches and classes have been looked at.
    #[cfg(test)]
    pub(super) looks: usize,
}

impl<F> Default for WorkFetches<F> {
    fn default() -> Self {
        Self {
            parked: Parked::default(),
            unseen: BTreeSet::new(),
            without_session: ByTags::default(),
            with_session: ByTags::default(),
            by_owner: HashMap::new(),
            patient: ByTags::default(),
            candidates: BTreeSet::new(),
            served: None,
            #[cfg(test)]
            looks: 0,
        }
    }
}

impl<F> WorkFetches<F> {
    pub(crate) fn park(&mut self, no: FetchNo, deadline: Duration, wants: Wants, fetch: F) {
        self.parked.park(no, deadline, (wants, fetch));
        self.unseen.insert(no);
    }

    pub(crate) fn take(&mut self, no: FetchNo) -> Option<(Wants, F)> {
        let (wants, fetch) = self.parked.take(no)?;
        if self.unseen.remove(&no) {
            return Some((wants, fetch));
        }
        match &wants.owner {
            None => {
                self.without_session.remove(&wants.tags, no);
                self.patient.remove(&wants.tags, no);
            }
            Some(owner) => {
                self.with_session.remove(&wants.tags, no);
                if let Some(fetches) = self.by_owner.get_mut(owner) {
                    fetches.remove(&wants.tags, no);
                    if fetches.is_empty() {
                        self.by_owner.remove(owner);
                    }
                }
            }
        }
        Some((wants, fetch))
    }

    /// Takes the next fetch that can be served, with the item for it, which is to be leased before this is
    /// asked again. Those that are `gone` are dropped when they are met.
    pub(crate) fn next_match(
        &mut self,
        work: &mut Work,
        now: Duration,
        gone: impl Fn(&F) -> bool,
    ) -> Option<(Wants, F, WorkId)> {
        let got_items = work.take_got_items();
        if self.parked.is_empty() {
            // Whoever comes looks at everything.
            self.candidates.clear();
            self.served = None;
            return None;
        }
        for class in got_items.into_iter().chain(self.served.take()) {
            self.consider(class, work, now);
        }
        loop {
            let candidate = self.candidates.first().map(|(no, _)| *no);
            let unseen = self.unseen.first().copied();
            let no = candidate.into_iter().chain(unseen).min()?;
            self.look();
            let class = if candidate == Some(no) { self.candidates.pop_first() } else { None };
            let class = class.map(|(_, class)| class);
            let picked = match self.parked.get(no) {
                // The class's fetch has been given another item, or is not waiting any more.
                None => None,
                Some((_, fetch)) if gone(fetch) => {
                    self.take(no);
                    None
                }
                Some((wants, _)) => {
                    let picked = work.pick(wants.owner.as_deref(), &wants.tags);
                    if picked.is_none() && self.unseen.remove(&no) {
                        self.index(no, work, now);
                    }
                    picked
                }
            };
            if let Some(id) = picked
                && let Some((wants, fetch)) = self.take(no)
            {
                self.served = class;
                return Some((wants, fetch, id));
            }
            if let Some(class) = class {
                self.consider(class, work, now);
            }
        }
    }

    /// Takes the next fetch that is to be told that there is nothing; `hold` keeps it for now instead.
    pub(crate) fn pop_unserved(&mut self, now: Duration, hold: bool) -> Option<F> {
        let no = self.parked.next_unserved(now, hold)?;
        self.take(no).map(|(_, fetch)| fetch)
    }

    /// Whether some are held.
    pub(crate) fn holds(&self) -> bool {
        self.parked.holds()
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.parked.next_deadline()
    }

    #[cfg(test)]
    pub(super) fn deadline(&self, no: FetchNo) -> Option<Duration> {
        self.parked.deadline(no)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = F> + use<F> {
        let parked = std::mem::take(self).parked.drain();
        parked.map(|(_, fetch)| fetch)
    }

    /// Finds the oldest fetch for a class; if there is none, who would have to ask otherwise to get any of it
    /// need not wait.
    fn consider(&mut self, class: Class, work: &Work, now: Duration) {
        self.look();
        if !work.has(&class) {
            return;
        }
        let tag = class.tag.as_deref();
        let oldest = match &class.lane {
            Lane::NoSession => {
                let oldest = [self.without_session.oldest(tag), self.with_session.oldest(tag)];
                oldest.into_iter().flatten().min()
            }
            Lane::Unclaimed => self.with_session.oldest(tag),
            Lane::OwnedBy(owner) => self.by_owner.get(owner).and_then(|fetches| fetches.oldest(tag)),
        };
        if let Some(oldest) = oldest {
            self.candidates.insert((oldest, class));
        } else if class.lane != Lane::NoSession {
            for no in self.patient.accepting(tag) {
                self.look();
                if let Some((wants, _)) = self.parked.get(no) {
                    self.patient.remove(&wants.tags, no);
                }
                self.parked.hurry(no, now.saturating_add(SESSIONLESS_POLL_MAX));
            }
        }
    }

    fn index(&mut self, no: FetchNo, work: &Work, now: Duration) {
        let Some((wants, _)) = self.parked.get(no) else { return };
        match &wants.owner {
            None => {
                self.without_session.insert(&wants.tags, no);
                if work.waits_in_session(&wants.tags) {
                    self.parked.hurry(no, now.saturating_add(SESSIONLESS_POLL_MAX));
                } else {
                    self.patient.insert(&wants.tags, no);
                }
            }
            Some(owner) => {
                self.with_session.insert(&wants.tags, no);
                self.by_owner.entry(Arc::clone(owner)).or_default().insert(&wants.tags, no);
            }
        }
    }

    #[cfg(test)]
    fn look(&mut self) {
        self.looks += 1;
    }

    #[cfg(not(test))]
    fn look(&self) {}
}

/// Fetches by the tags they take.
#[derive(Debug, Default)]
struct ByTags {
    any: BTreeSet<FetchNo>,
    untagged: BTreeSet<FetchNo>,
    tagged: HashMap<String, BTreeSet<FetchNo>>,
}

impl ByTags {
    fn insert(&mut self, tags: &TagFilter, no: FetchNo) {
        if matches!(tags, TagFilter::Any) {
            self.any.insert(no);
        }
        if matches!(tags, TagFilter::DefaultOnly | TagFilter::DefaultAnd(_)) {
            self.untagged.insert(no);
        }
        if let TagFilter::Tags(tags) | TagFilter::DefaultAnd(tags) = tags {
            for tag in tags {
                self.tagged.entry(tag.clone()).or_default().insert(no);
            }
        }
    }

    fn remove(&mut self, tags: &TagFilter, no: FetchNo) {
        if matches!(tags, TagFilter::Any) {
            self.any.remove(&no);
        }
        if matches!(tags, TagFilter::DefaultOnly | TagFilter::DefaultAnd(_)) {
            self.untagged.remove(&no);
        }
        if let TagFilter::Tags(tags) | TagFilter::DefaultAnd(tags) = tags {
            for tag in tags {
                if let Some(fetches) = self.tagged.get_mut(tag) {
                    fetches.remove(&no);
                    if fetches.is_empty() {
                        self.tagged.remove(tag);
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_empty() && self.untagged.is_empty() && self.tagged.is_empty()
    }

    /// Those that take items of this tag and do not take every tag.
    fn naming(&self, tag: Option<&str>) -> Option<&BTreeSet<FetchNo>> {
        match tag {
            None => Some(&self.untagged),
            Some(tag) => self.tagged.get(tag),
        }
    }

    fn oldest(&self, tag: Option<&str>) -> Option<FetchNo> {
        let naming = self.naming(tag).and_then(BTreeSet::first);
        [self.any.first(), naming].into_iter().flatten().min().copied()
    }

    fn accepting(&self, tag: Option<&str>) -> Vec<FetchNo> {
        self.any.iter().chain(self.naming(tag).into_iter().flatten()).copied().collect()
    }
}
