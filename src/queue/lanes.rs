//! Ready activities, in lanes by who may take them and within a lane by tag, the oldest first.
//!
//! Items of one lane and one tag are a [`Class`]: whoever may take one of them may take any of them. Which
//! classes have got items is remembered until it is asked for, so that nobody has to look at the others again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use duroxide::providers::TagFilter;

use super::WorkId;

pub(super) type Tag = Option<Arc<str>>;

/// Who may take an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Everybody.
    NoSession,
    /// Whoever takes part in sessions.
    Unclaimed,
    /// One worker.
    OwnedBy(Arc<str>),
}

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) lane: Lane,
    pub(super) tag: Tag,
}

/// The items of one class.
#[derive(Debug, Default)]
struct Queue {
    items: BTreeSet<WorkId>,
    /// It is on the list of classes that got items.
    listed: bool,
}

/// The items of one lane.
#[derive(Debug, Default)]
struct Tags {
    untagged: Queue,
    tagged: HashMap<Arc<str>, Queue>,
    /// The oldest item of each tag: whoever takes any tag looks at the first of them alone.
    heads: BTreeSet<WorkId>,
}

/// How many ready items belong to sessions, whoever owns those.
#[derive(Debug, Default)]
struct InSessions {
    untagged: usize,
    tagged: HashMap<Arc<str>, usize>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    no_session: Tags,
    unclaimed: Tags,
    owned: HashMap<Arc<str>, Tags>,
    in_sessions: InSessions,
    got_items: Vec<Class>,
}

impl Lanes {
    pub(super) fn insert(&mut self, lane: Lane, tag: &Tag, id: WorkId) {
        let tags = match &lane {
            Lane::NoSession => &mut self.no_session,
            Lane::Unclaimed => &mut self.unclaimed,
            Lane::OwnedBy(owner) => self.owned.entry(Arc::clone(owner)).or_default(),
        };
        if tags.insert(tag, id) {
            self.got_items.push(Class { lane: lane.clone(), tag: tag.clone() });
        }
        if lane != Lane::NoSession {
            self.in_sessions.add(tag);
        }
    }

    pub(super) fn remove(&mut self, lane: &Lane, tag: &Tag, id: WorkId) {
        let removed = match lane {
            Lane::NoSession => self.no_session.remove(tag, id),
            Lane::Unclaimed => self.unclaimed.remove(tag, id),
            Lane::OwnedBy(owner) => {
                let Some(tags) = self.owned.get_mut(owner) else { return };
                let removed = tags.remove(tag, id);
                if tags.is_empty() {
                    self.owned.remove(owner);
                }
                removed
            }
        };
        if removed && *lane != Lane::NoSession {
            self.in_sessions.subtract(tag);
        }
    }

    /// The oldest item that a worker may take.
    pub(super) fn pick(&self, owner: Option<&str>, tags: &TagFilter) -> Option<WorkId> {
        let no_session = self.no_session.head(tags);
        let Some(owner) = owner else { return no_session };
        let owned = self.owned.get(owner).and_then(|owned| owned.head(tags));
        [no_session, self.unclaimed.head(tags), owned].into_iter().flatten().min()
    }

    /// Whether an item is ready whose tag fits and that belongs to a session.
    pub(super) fn waits_in_session(&self, tags: &TagFilter) -> bool {
        let untagged = self.in_sessions.untagged > 0;
        let tagged = |tags: &HashSet<String>| {
            tags.iter().any(|tag| self.in_sessions.tagged.contains_key(tag.as_str()))
        };
        match tags {
            TagFilter::DefaultOnly => untagged,
            TagFilter::Tags(tags) => tagged(tags),
            TagFilter::DefaultAnd(tags) => untagged || tagged(tags),
            TagFilter::Any => untagged || !self.in_sessions.tagged.is_empty(),
            TagFilter::None => false,
        }
    }

    pub(super) fn has(&self, class: &Class) -> bool {
        let queue = self.tags(&class.lane).and_then(|tags| tags.queue(&class.tag));
        queue.is_some_and(|queue| !queue.items.is_empty())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.no_session.is_empty() && self.unclaimed.is_empty() && self.owned.is_empty()
    }

    /// The classes that got items since this was asked last. Some may have none any more.
    pub(super) fn take_got_items(&mut self) -> Vec<Class> {
        let classes = std::mem::take(&mut self.got_items);
        for class in &classes {
            let tags = match &class.lane {
                Lane::NoSession => Some(&mut self.no_session),
                Lane::Unclaimed => Some(&mut self.unclaimed),
                Lane::OwnedBy(owner) => self.owned.get_mut(owner),
            };
            if let Some(queue) = tags.and_then(|tags| tags.queue_mut(&class.tag)) {
                queue.listed = false;
            }
        }
        classes
    }

    fn tags(&self, lane: &Lane) -> Option<&Tags> {
        match lane {
            Lane::NoSession => Some(&self.no_session),
            Lane::Unclaimed => Some(&self.unclaimed),
            Lane::OwnedBy(owner) => self.owned.get(owner),
        }
    }
}

impl Tags {
    fn queue(&self, tag: &Tag) -> Option<&Queue> {
        match tag {
            None => Some(&self.untagged),
            Some(tag) => self.tagged.get(tag),
        }
    }

    fn queue_mut(&mut self, tag: &Tag) -> Option<&mut Queue> {
        match tag {
            None => Some(&mut self.untagged),
            Some(tag) => self.tagged.get_mut(tag),
        }
    }

    /// True if the class was not listed yet; it is now.
    fn insert(&mut self, tag: &Tag, id: WorkId) -> bool {
        let queue = match tag {
            None => &mut self.untagged,
            Some(tag) => {
                let queue = self.tagged.entry(Arc::clone(tag)).or_default();
                let head = queue.items.first().copied();
                if head.is_none_or(|head| id < head) {
                    head.inspect(|head| {
                        self.heads.remove(head);
                    });
                    self.heads.insert(id);
                }
                queue
            }
        };
        queue.items.insert(id);
        !std::mem::replace(&mut queue.listed, true)
    }

    fn remove(&mut self, tag: &Tag, id: WorkId) -> bool {
        let Some(tag) = tag else { return self.untagged.items.remove(&id) };
        let Some(queue) = self.tagged.get_mut(tag) else { return false };
        let removed = queue.items.remove(&id);
        if self.heads.remove(&id)
            && let Some(head) = queue.items.first()
        {
            self.heads.insert(*head);
        }
        if queue.items.is_empty() {
            self.tagged.remove(tag);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.untagged.items.is_empty() && self.tagged.is_empty()
    }

    fn head(&self, tags: &TagFilter) -> Option<WorkId> {
        let untagged = || self.untagged.items.first();
        let tagged = |tags: &HashSet<String>| {
            // A filter names five tags at the most; the queues of all other tags stay unseen.
            tags.iter().filter_map(|tag| self.tagged.get(tag.as_str())?.items.first()).min()
        };
        let head = match tags {
            TagFilter::DefaultOnly => untagged(),
            TagFilter::Tags(tags) => tagged(tags),
            TagFilter::DefaultAnd(tags) => [untagged(), tagged(tags)].into_iter().flatten().min(),
            TagFilter::Any => [untagged(), self.heads.first()].into_iter().flatten().min(),
            TagFilter::None => None,
        };
        head.copied()
    }
}

impl InSessions {
    fn add(&mut self, tag: &Tag) {
        match tag {
            None => self.untagged += 1,
            Some(tag) => *self.tagged.entry(Arc::clone(tag)).or_default() += 1,
        }
    }

    fn subtract(&mut self, tag: &Tag) {
        match tag {
            None => self.untagged -= 1,
            Some(tag) => {
                if let Some(count) = self.tagged.get_mut(tag) {
                    *count -= 1;
                    if *count == 0 {
                        self.tagged.remove(tag);
                    }
                }
            }
        }
    }
}
