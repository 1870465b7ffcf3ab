//! One instance as the orchestrator queue knows it: its visible messages, what is known of its rows, and where it is listed.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;

use super::{Body, LeaseNo, MessageId};

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

/// What is kept with an instance: scheduling asks no more of it than this.
pub(crate) trait Runs {
    /// Whether a turn can run on it without a start among its messages.
    fn is_runnable(&self) -> bool;

    /// The duroxide version it is pinned to.
    fn pinned(&self) -> Option<&Version>;
}

impl<R: Runs> Runs for Arc<R> {
    fn is_runnable(&self) -> bool {
        R::is_runnable(self)
    }

    fn pinned(&self) -> Option<&Version> {
        R::pinned(self)
    }
}

/// What is known of the rows of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum RowCache<R> {
    #[default]
    Unread,
    Absent,
    Present(R),
}

/// Where an instance is listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Listed {
    #[default]
    Nowhere,
    Unread(MessageId),
    Ready(Option<Version>, MessageId),
    Orphaned(MessageId),
}

#[derive(Debug)]
pub(super) struct Instance<R> {
    pub(super) id: Arc<str>,
    pub(super) rows: RowCache<R>,
    pub(super) visible: Visible,
    pub(super) lease: Option<LeaseNo>,
    pub(super) listed: Listed,
    /// In the list of instances kept only for what is known of their rows.
    pub(super) resting: bool,
}

/// The visible messages of an instance, counted by kind.
#[derive(Debug, Default)]
pub(super) struct Visible {
    pub(super) messages: BTreeMap<MessageId, Message>,
    starts: usize,
    events: usize,
}

impl Visible {
    fn count(&mut self, kind: MessageKind) -> Option<&mut usize> {
        match kind {
            MessageKind::Start => Some(&mut self.starts),
            MessageKind::Event => Some(&mut self.events),
            MessageKind::Other => None,
        }
    }

    /// False if a message of this id was there already.
    pub(super) fn insert(&mut self, id: MessageId, message: Message) -> bool {
        let is_new = self.remove(id).is_none();
        if let Some(count) = self.count(message.kind) {
            *count += 1;
        }
        self.messages.insert(id, message);
        is_new
    }

    pub(super) fn remove(&mut self, id: MessageId) -> Option<Message> {
        let message = self.messages.remove(&id)?;
        if let Some(count) = self.count(message.kind) {
            *count -= 1;
        }
        Some(message)
    }

    fn head(&self) -> Option<MessageId> {
        self.messages.first_key_value().map(|(id, _)| *id)
    }
}

impl<R: Runs> Instance<R> {
    /// One without messages, of which nothing is known.
    pub(super) fn new(id: Arc<str>) -> Self {
        Self {
            id,
            rows: RowCache::Unread,
            visible: Visible::default(),
            lease: None,
            listed: Listed::Nowhere,
            resting: false,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lease.is_none() && self.visible.messages.is_empty()
    }

    pub(super) fn belongs(&self) -> Listed {
        let Some(head) = self.visible.head().filter(|_| self.lease.is_none()) else {
            return Listed::Nowhere;
        };
        match &self.rows {
            RowCache::Unread => Listed::Unread(head),
            RowCache::Present(rows) if rows.is_runnable() => Listed::Ready(rows.pinned().cloned(), head),
            RowCache::Present(_) | RowCache::Absent => {
                if self.visible.starts > 0 {
                    Listed::Ready(None, head)
                } else if self.visible.events == self.visible.messages.len() {
                    Listed::Orphaned(head)
                } else {
                    // Racing with its start, which will list it.
                    Listed::Nowhere
                }
            }
        }
    }
}
