//! Messages of orchestration instances, and which instance can have a turn next.
//!
//! An instance is *ready* when it has a visible message, no lease, and something to run: rows of its own or a
//! visible start. Ready instances are kept by the duroxide version they are pinned to, so a dispatcher that
//! cannot replay some of them finds the oldest of the others without walking past those.
//!
//! Whether an instance has rows is unknown until the engine looked ([`RowCache::Unread`]); it looks only when
//! somebody wants a turn, and this instance would be next if it is ready ([`Turns::next`]).
//!
//! A message that waits for its time makes no instance known: see `delayed.rs`.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use semver::Version;

use super::delayed::Delayed;
use super::instance::{Instance, Listed, Message, RowCache, Runs};
use super::{LeaseNo, MessageId, Now, VISIBLE};

/// Numbers the instances known in memory. Never reused, so a stale one finds nothing.
pub(crate) type InstanceNo = u64;

/// What comes first for somebody who wants a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// This instance can have a turn.
    Ready(InstanceNo),
    /// The rows of this instance must be looked at first: it is older than any that is ready.
    Unread(InstanceNo),
    /// Nothing but queued events waits for this instance, and it never started: they are to be dropped.
    Orphaned(InstanceNo),
    Nothing,
}

/// Instances without messages or lease of which what is known is kept anyway, to spare the next look at their rows.
pub(super) const RESTING_MAX: usize = 4096;

/// The messages of all instances.
#[derive(Debug)]
pub(crate) struct Turns<R> {
    instances: HashMap<InstanceNo, Instance<R>>,
    by_id: HashMap<Arc<str>, InstanceNo>,
    next_no: InstanceNo,
    unread: BTreeSet<(MessageId, InstanceNo)>,
    ready: BTreeMap<Option<Version>, BTreeSet<(MessageId, InstanceNo)>>,
    orphaned: BTreeSet<(MessageId, InstanceNo)>,
    resting: VecDeque<InstanceNo>,
    /// Visible and in no lease.
    messages: usize,
    delayed: Delayed,
    hashes: RandomState,
    /// See [`Turns::take_news`] and [`Turns::take_newly_unread`].
    news: bool,
    newly_unread: usize,
}

impl<R> Default for Turns<R> {
    fn default() -> Self {
        Self {
            instances: HashMap::new(),
            by_id: HashMap::new(),
            next_no: 0,
            unread: BTreeSet::new(),
            ready: BTreeMap::new(),
            orphaned: BTreeSet::new(),
            resting: VecDeque::new(),
            messages: 0,
            delayed: Delayed::default(),
            hashes: RandomState::new(),
            news: false,
            newly_unread: 0,
        }
    }
}

impl<R: Runs> Turns<R> {
    /// The instance called `id`, made known if it was not.
    pub(crate) fn instance(&mut self, id: &str) -> InstanceNo {
        if let Some(no) = self.by_id.get(id) {
            return *no;
        }
        let no = self.next_no;
        self.next_no += 1;
        let id: Arc<str> = id.into();
        self.by_id.insert(Arc::clone(&id), no);
        let instance = Instance::new(id);
        self.instances.insert(no, instance);
        no
    }

    pub(crate) fn find(&self, id: &str) -> Option<InstanceNo> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn id(&self, no: InstanceNo) -> Option<&Arc<str>> {
        self.instances.get(&no).map(|instance| &instance.id)
    }

    pub(crate) fn lease_of(&self, no: InstanceNo) -> Option<LeaseNo> {
        self.instances.get(&no)?.lease
    }

    /// What is known of its rows.
    pub(crate) fn rows(&self, no: InstanceNo) -> &RowCache<R> {
        self.instances.get(&no).map_or(&RowCache::Unread, |instance| &instance.rows)
    }

    pub(crate) fn set_rows(&mut self, no: InstanceNo, rows: RowCache<R>) {
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.rows = rows;
            self.relist(no);
        }
    }

    /// Adds a message that is in no lease. One that is due is visible from here on, whatever becomes of the clock.
    pub(crate) fn push(&mut self, no: InstanceNo, id: MessageId, mut message: Message, now: Now) {
        let Some(instance) = self.instances.get_mut(&no) else { return };
        if message.visible_at_ms > now.wall_ms {
            let hash = self.hashes.hash_one(&*instance.id);
            self.delayed.insert(hash, id, message.visible_at_ms);
        } else {
            message.visible_at_ms = VISIBLE;
            self.messages += usize::from(instance.visible.insert(id, message));
            self.relist(no);
        }
    }

    /// Adds a message that waits for its time, without making its instance known.
    pub(crate) fn delay(&mut self, instance: &str, id: MessageId, due_ms: u64) {
        self.delayed.insert(self.hash(instance), id, due_ms);
    }

    /// As [`delay`](Self::delay), for many at once: the hash of the instance's id, the message, and when it is due.
    pub(crate) fn delay_all(&mut self, many: &[(u64, MessageId, u64)]) {
        self.delayed.extend(many);
    }

    /// What [`delay_all`](Self::delay_all) knows an instance by.
    pub(crate) fn hash(&self, instance: &str) -> u64 {
        self.hashes.hash_one(instance)
    }

    /// Takes the next message that has fallen due, with what its instance is known by. Its row says whose it is;
    /// the caller pushes it.
    pub(crate) fn pop_due(&mut self, now: Now) -> Option<(u64, MessageId)> {
        self.delayed.pop_due(now.wall_ms)
    }

    /// When the next delayed message falls due, in milliseconds of wall time.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.delayed.next_due_ms()
    }

    /// The delayed messages of an instance, and now and then one of another: each row says whose it is.
    pub(crate) fn delayed_of(&self, instance: &str) -> Vec<MessageId> {
        self.delayed.of(self.hash(instance)).collect()
    }

    /// Takes a message out that waits for its time, giving back when it would have fallen due.
    pub(crate) fn take_delayed(&mut self, instance: &str, id: MessageId) -> Option<u64> {
        self.delayed.remove(self.hash(instance), id)
    }

    /// What comes first for a fetch that accepts these pinned versions.
    pub(crate) fn next(&self, accepts: impl Fn(Option<&Version>) -> bool) -> Next {
        let ready = self.ready.iter().filter(|(version, _)| accepts(version.as_ref()));
        let ready = ready.filter_map(|(_, instances)| instances.first()).min();
        let heads = [
            ready.map(|&(head, no)| (head, Next::Ready(no))),
            self.unread.first().map(|&(head, no)| (head, Next::Unread(no))),
            // Pinned to nothing, as everything that has not started.
            self.orphaned.first().filter(|_| accepts(None)).map(|&(head, no)| (head, Next::Orphaned(no))),
        ];
        let first = heads.into_iter().flatten().min_by_key(|(head, _)| *head);
        first.map_or(Next::Nothing, |(_, next)| next)
    }

    /// Removes the visible messages of an instance.
    pub(crate) fn take_visible(&mut self, no: InstanceNo) -> BTreeMap<MessageId, Message> {
        let Some(instance) = self.instances.get_mut(&no) else { return BTreeMap::new() };
        let messages = std::mem::take(&mut instance.visible).messages;
        self.messages -= messages.len();
        self.relist(no);
        messages
    }

    /// The oldest instances whose rows must be looked at, as many.
    pub(crate) fn oldest_unread(&self, many: usize) -> Vec<InstanceNo> {
        self.unread.iter().take(many).map(|(_, no)| *no).collect()
    }

    pub(crate) fn has_candidates(&self) -> bool {
        !self.ready.is_empty() || !self.unread.is_empty() || !self.orphaned.is_empty()
    }

    /// Whether an instance has become a candidate since this was last asked, or another kind of one.
    pub(crate) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// How many instances have become candidates whose rows are unknown, since this was last asked.
    pub(crate) fn take_newly_unread(&mut self) -> usize {
        std::mem::take(&mut self.newly_unread)
    }

    /// Leases an instance with every message that is visible now.
    pub(crate) fn lease(&mut self, no: InstanceNo, lease: LeaseNo) -> BTreeMap<MessageId, Message> {
        let Some(instance) = self.instances.get_mut(&no) else { return BTreeMap::new() };
        instance.lease = Some(lease);
        self.take_visible(no)
    }

    /// Puts an instance under a lease that has its messages already: one that was ended and stands again.
    pub(crate) fn lease_nothing(&mut self, no: InstanceNo, lease: LeaseNo) {
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.lease = Some(lease);
            self.relist(no);
        }
    }

    /// Takes one visible message out, as if it had never come; `None` if it is not there, or under a lease.
    pub(crate) fn take_message(&mut self, no: InstanceNo, id: MessageId) -> Option<Message> {
        let message = self.instances.get_mut(&no)?.visible.remove(id)?;
        self.messages -= 1;
        self.relist(no);
        Some(message)
    }

    /// An instance that was forgotten is known again, under the number it had.
    pub(crate) fn reinstate(&mut self, no: InstanceNo, id: &Arc<str>) {
        if self.instances.contains_key(&no) {
            return;
        }
        // What took its place has been emptied by now.
        if let Some(successor) = self.by_id.get(id).copied() {
            self.remove(successor);
        }
        self.by_id.insert(Arc::clone(id), no);
        self.instances.insert(no, Instance::new(Arc::clone(id)));
    }

    /// Ends the lease of an instance; messages it still held are pushed back by the caller.
    pub(crate) fn release(&mut self, no: InstanceNo) {
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.lease = None;
            self.relist(no);
        }
    }

    /// Forgets an instance, giving back the visible messages that waited for it.
    pub(crate) fn remove(&mut self, no: InstanceNo) -> BTreeMap<MessageId, Message> {
        self.unlist(no);
        let Some(instance) = self.instances.remove(&no) else { return BTreeMap::new() };
        self.by_id.remove(&instance.id);
        let messages = instance.visible.messages;
        self.messages -= messages.len();
        messages
    }

    /// The visible messages of an instance that are in no lease.
    pub(crate) fn messages(&self, no: InstanceNo) -> impl Iterator<Item = (MessageId, &Message)> {
        let instance = self.instances.get(&no);
        let all = instance.into_iter().flat_map(|instance| &instance.visible.messages);
        all.map(|(id, message)| (*id, message))
    }

    /// Messages that are in no lease, visible or not.
    pub(crate) fn len(&self) -> usize {
        self.messages + self.delayed.len()
    }

    /// How many instances are known.
    #[cfg(test)]
    pub(crate) fn known(&self) -> usize {
        self.instances.len()
    }

    /// How many instances have rows that nobody has looked at.
    #[cfg(test)]
    pub(crate) fn unread(&self) -> usize {
        self.instances.values().filter(|instance| matches!(instance.rows, RowCache::Unread)).count()
    }

    fn unlist(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get_mut(&no) else { return };
        match std::mem::take(&mut instance.listed) {
            Listed::Nowhere => {}
            Listed::Unread(head) => {
                self.unread.remove(&(head, no));
            }
            Listed::Orphaned(head) => {
                self.orphaned.remove(&(head, no));
            }
            Listed::Ready(version, head) => {
                if let Some(instances) = self.ready.get_mut(&version) {
                    instances.remove(&(head, no));
                    if instances.is_empty() {
                        self.ready.remove(&version);
                    }
                }
            }
        }
    }

    /// Lists an instance where it belongs now. Called after every change to it.
    fn relist(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get(&no) else { return };
        let listed = instance.belongs();
        if listed != instance.listed {
            let was_unread = matches!(instance.listed, Listed::Unread(_));
            self.news |= listed != Listed::Nowhere;
            self.unlist(no);
            match &listed {
                Listed::Nowhere => {}
                Listed::Unread(head) => {
                    self.newly_unread += usize::from(!was_unread);
                    self.unread.insert((*head, no));
                }
                Listed::Orphaned(head) => {
                    self.orphaned.insert((*head, no));
                }
                Listed::Ready(version, head) => {
                    self.ready.entry(version.clone()).or_default().insert((*head, no));
                }
            }
        }
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.listed = listed;
            if instance.is_idle() && !instance.resting {
                instance.resting = true;
                self.resting.push_back(no);
                self.retire_oldest();
            }
        }
    }

    /// Forgets the instance that has been idle longest, once there are too many. One that woke up meanwhile
    /// leaves the list and joins it again when it is next idle.
    fn retire_oldest(&mut self) {
        while self.resting.len() > RESTING_MAX {
            let Some(no) = self.resting.pop_front() else { return };
            let Some(instance) = self.instances.get_mut(&no) else { continue };
            instance.resting = false;
            if instance.is_idle() {
                self.remove(no);
            }
        }
    }
}
