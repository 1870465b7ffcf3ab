//! Messages of orchestration instances, and which instance can have a turn next.
//!
//! An instance is *ready* when it has a visible message, no lease, and something to run: rows of its own or a
//! visible start. Ready instances are kept by the duroxide version they are pinned to, so a dispatcher that
//! cannot replay some of them finds the oldest of the others without walking past those.
//!
//! Whether an instance has rows is unknown until the engine looked ([`Standing::Unread`]); it looks only when
//! somebody wants a turn.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use semver::Version;

use super::{Body, LeaseNo, MessageId, Now, VISIBLE};

/// Numbers the instances known in memory. Never reused, so a stale one finds nothing.
pub(crate) type InstanceNo = u64;

/// What a message means for the question whether its instance can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A start or a continue-as-new: enough to run an instance that has no rows yet.
    Start,
    /// A queued event: dropped when it comes before the start of its instance.
    Event,
    /// Anything else: kept when it comes before the start, because it may merely have overtaken it.
    Other,
}

/// One queued message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) visible_at_ms: u64,
    pub(crate) attempt: u32,
    pub(crate) kind: MessageKind,
    pub(crate) body: Option<Body>,
}

/// The rows of an instance, as far as scheduling and a fetch need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRow {
    pub(crate) key: i64,
    /// `None` for an instance that so far only has history appended by hand.
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) execution: u64,
    /// The duroxide version the current execution is pinned to.
    pub(crate) pinned: Option<Version>,
    /// Whether the current execution has a row of its own.
    pub(crate) has_execution: bool,
    /// Whether there may be key-values.
    pub(crate) has_kv: bool,
    /// Whether a turn can run on these rows alone.
    pub(crate) runnable: bool,
    /// The last event stored of the current execution; `None` if nobody has looked.
    pub(crate) last_event: Option<u64>,
}

impl InstanceRow {
    /// The last event stored of an execution; 0 if it has none, `None` if nobody has looked.
    pub(crate) fn last_event_of(&self, execution: u64) -> Option<u64> {
        self.last_event.filter(|_| execution == self.execution)
    }
}

/// What is known of the rows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Standing {
    #[default]
    Unread,
    Absent,
    Present(Arc<InstanceRow>),
}

/// Where an instance is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Listed {
    #[default]
    Nowhere,
    Unread(MessageId),
    Ready(Option<Version>, MessageId),
    Orphaned,
}

#[derive(Debug)]
struct Instance {
    id: Arc<str>,
    standing: Standing,
    visible: BTreeMap<MessageId, Message>,
    delayed: BTreeMap<MessageId, Message>,
    lease: Option<LeaseNo>,
    listed: Listed,
    /// In the list of instances kept only for their standing.
    resting: bool,
}

/// Instances without messages or lease whose standing is kept anyway, to spare the next look at their rows.
pub(super) const RESTING_MAX: usize = 4096;

/// The messages of all instances.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    instances: HashMap<InstanceNo, Instance>,
    by_id: HashMap<Arc<str>, InstanceNo>,
    next_no: InstanceNo,
    unread: BTreeSet<(MessageId, InstanceNo)>,
    ready: BTreeMap<Option<Version>, BTreeSet<(MessageId, InstanceNo)>>,
    orphaned: BTreeSet<InstanceNo>,
    delayed: BTreeSet<(u64, MessageId, InstanceNo)>,
    resting: VecDeque<InstanceNo>,
    messages: usize,
}

impl Turns {
    /// The instance called `id`, made known if it was not.
    pub(crate) fn instance(&mut self, id: &str) -> InstanceNo {
        if let Some(no) = self.by_id.get(id) {
            return *no;
        }
        let no = self.next_no;
        self.next_no += 1;
        let id: Arc<str> = id.into();
        self.by_id.insert(Arc::clone(&id), no);
        let instance = Instance {
            id,
            standing: Standing::Unread,
            visible: BTreeMap::new(),
            delayed: BTreeMap::new(),
            lease: None,
            listed: Listed::Nowhere,
            resting: false,
        };
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

    pub(crate) fn standing(&self, no: InstanceNo) -> &Standing {
        self.instances.get(&no).map_or(&Standing::Unread, |instance| &instance.standing)
    }

    pub(crate) fn set_standing(&mut self, no: InstanceNo, standing: Standing) {
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.standing = standing;
            self.relist(no);
        }
    }

    /// Adds a message that is in no lease.
    pub(crate) fn push(&mut self, no: InstanceNo, id: MessageId, message: Message, now: Now) {
        let Some(instance) = self.instances.get_mut(&no) else { return };
        self.messages += 1;
        if message.visible_at_ms > now.wall_ms {
            self.delayed.insert((message.visible_at_ms, id, no));
            instance.delayed.insert(id, message);
        } else {
            instance.visible.insert(id, message);
            self.relist(no);
        }
    }

    /// Makes visible what has fallen due.
    pub(crate) fn promote(&mut self, now: Now) {
        while let Some(&(due_ms, id, no)) = self.delayed.first() {
            if due_ms > now.wall_ms {
                return;
            }
            self.delayed.pop_first();
            let Some(instance) = self.instances.get_mut(&no) else { continue };
            if let Some(mut message) = instance.delayed.remove(&id) {
                message.visible_at_ms = VISIBLE;
                instance.visible.insert(id, message);
                self.relist(no);
            }
        }
    }

    /// When the next delayed message falls due, in milliseconds of wall time.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.delayed.first().map(|(due_ms, ..)| *due_ms)
    }

    /// An instance whose rows must be looked at before anybody can tell whether it is ready.
    pub(crate) fn next_unread(&self) -> Option<InstanceNo> {
        self.unread.first().map(|(_, no)| *no)
    }

    /// Removes the messages of an instance that consist of queued events alone although it never started.
    pub(crate) fn take_orphans(&mut self) -> Option<(Arc<str>, Vec<MessageId>)> {
        let no = self.orphaned.first().copied()?;
        let instance = self.instances.get_mut(&no)?;
        let id = Arc::clone(&instance.id);
        let messages: Vec<MessageId> = std::mem::take(&mut instance.visible).into_keys().collect();
        self.messages -= messages.len();
        self.relist(no);
        Some((id, messages))
    }

    pub(crate) fn has_candidates(&self) -> bool {
        !self.ready.is_empty() || !self.unread.is_empty() || !self.orphaned.is_empty()
    }

    /// The ready instance with the oldest message among those whose pinned version is accepted.
    pub(crate) fn pick(&self, accepts: impl Fn(Option<&Version>) -> bool) -> Option<InstanceNo> {
        let heads = self.ready.iter().filter(|(version, _)| accepts(version.as_ref()));
        heads.filter_map(|(_, instances)| instances.first()).min().map(|(_, no)| *no)
    }

    /// Leases an instance with every message that is visible now.
    pub(crate) fn lease(&mut self, no: InstanceNo, lease: LeaseNo) -> BTreeMap<MessageId, Message> {
        let Some(instance) = self.instances.get_mut(&no) else { return BTreeMap::new() };
        instance.lease = Some(lease);
        let messages = std::mem::take(&mut instance.visible);
        self.messages -= messages.len();
        self.relist(no);
        messages
    }

    /// Leases exactly these messages again, after memory was rebuilt. Those that are gone stay gone.
    pub(crate) fn lease_again(
        &mut self,
        no: InstanceNo,
        lease: LeaseNo,
        ids: &[MessageId],
    ) -> BTreeMap<MessageId, Message> {
        let Some(instance) = self.instances.get_mut(&no) else { return BTreeMap::new() };
        instance.lease = Some(lease);
        let messages: BTreeMap<_, _> =
            ids.iter().filter_map(|id| Some((*id, instance.visible.remove(id)?))).collect();
        self.messages -= messages.len();
        self.relist(no);
        messages
    }

    /// Ends the lease of an instance; messages it still held are pushed back by the caller.
    pub(crate) fn release(&mut self, no: InstanceNo) {
        if let Some(instance) = self.instances.get_mut(&no) {
            instance.lease = None;
            self.relist(no);
        }
    }

    /// Forgets an instance, giving back the ids of the messages that waited for it.
    pub(crate) fn remove(&mut self, no: InstanceNo) -> Vec<MessageId> {
        self.unlist(no);
        let Some(instance) = self.instances.remove(&no) else { return Vec::new() };
        self.by_id.remove(&instance.id);
        for (id, message) in &instance.delayed {
            self.delayed.remove(&(message.visible_at_ms, *id, no));
        }
        let ids: Vec<MessageId> = instance.visible.into_keys().chain(instance.delayed.into_keys()).collect();
        self.messages -= ids.len();
        ids
    }

    /// The messages of an instance that are in no lease, visible or not.
    pub(crate) fn messages(&self, no: InstanceNo) -> impl Iterator<Item = (MessageId, &Message)> {
        let instance = self.instances.get(&no);
        let all = instance.into_iter().flat_map(|instance| instance.visible.iter().chain(&instance.delayed));
        all.map(|(id, message)| (*id, message))
    }

    /// Messages that are in no lease, visible or not.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    fn unlist(&mut self, no: InstanceNo) {
        let Some(instance) = self.instances.get_mut(&no) else { return };
        match std::mem::take(&mut instance.listed) {
            Listed::Nowhere => {}
            Listed::Unread(head) => {
                self.unread.remove(&(head, no));
            }
            Listed::Orphaned => {
                self.orphaned.remove(&no);
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
            self.unlist(no);
            match &listed {
                Listed::Nowhere => {}
                Listed::Unread(head) => {
                    self.unread.insert((*head, no));
                }
                Listed::Orphaned => {
                    self.orphaned.insert(no);
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

impl Instance {
    fn is_idle(&self) -> bool {
        self.lease.is_none() && self.visible.is_empty() && self.delayed.is_empty()
    }

    fn belongs(&self) -> Listed {
        let Some((&head, _)) = self.visible.first_key_value().filter(|_| self.lease.is_none()) else {
            return Listed::Nowhere;
        };
        match &self.standing {
            Standing::Unread => Listed::Unread(head),
            Standing::Present(row) if row.runnable => Listed::Ready(row.pinned.clone(), head),
            Standing::Present(_) | Standing::Absent => {
                let any = |kind| self.visible.values().any(|message| message.kind == kind);
                if any(MessageKind::Start) {
                    Listed::Ready(None, head)
                } else if any(MessageKind::Other) {
                    // Racing with its start, which will list it.
                    Listed::Nowhere
                } else {
                    Listed::Orphaned
                }
            }
        }
    }
}
