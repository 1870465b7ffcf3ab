//! What changes of an instance's key-values mean.
//!
//! A key has a *base*, which executions before the running one left behind and a turn is given, and a *delta*, which the
//! running one has done and readers see at once. When an execution ends its deltas become the base of the next.

use std::collections::{BTreeMap, HashMap};

use duroxide::providers::KvEntry;

/// What a turn is given: the values that earlier executions left behind.
pub(crate) type KvBase = HashMap<String, KvEntry>;

/// A change of one instance's key-values, in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvOp {
    Set {
        key: String,
        value: String,
        at_ms: u64,
    },
    /// Of a key that is there.
    Clear {
        key: String,
        at_ms: u64,
    },
    ClearAll {
        at_ms: u64,
    },
    /// The execution has ended.
    Fold,
}

/// What the running execution did to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KvDelta {
    Untouched,
    Set(String, u64),
    Cleared,
}

#[derive(Debug, Clone)]
pub(crate) struct KvRow {
    pub(crate) base: Option<KvEntry>,
    pub(crate) delta: KvDelta,
}

/// The key-values of one instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct KvRows(pub(crate) BTreeMap<String, KvRow>);

impl KvRows {
    pub(crate) fn apply(&mut self, op: &KvOp) {
        let rows = &mut self.0;
        match op {
            KvOp::Set { key, value, at_ms } => {
                let row = rows.entry(key.clone()).or_insert(KvRow { base: None, delta: KvDelta::Untouched });
                row.delta = KvDelta::Set(value.clone(), *at_ms);
            }
            KvOp::Clear { key, .. } => {
                if let Some(row) = rows.get_mut(key) {
                    row.delta = KvDelta::Cleared;
                }
            }
            KvOp::ClearAll { .. } => {
                for row in rows.values_mut() {
                    row.delta = KvDelta::Cleared;
                }
            }
            KvOp::Fold => {
                rows.retain(|_, row| row.delta != KvDelta::Cleared);
                for row in rows.values_mut() {
                    if let KvDelta::Set(value, last_updated_at_ms) =
                        std::mem::replace(&mut row.delta, KvDelta::Untouched)
                    {
                        row.base = Some(KvEntry { value, last_updated_at_ms });
                    }
                }
            }
        }
    }

    /// What a turn is given.
    pub(crate) fn into_base(self) -> KvBase {
        self.0.into_iter().filter_map(|(key, row)| Some((key, row.base?))).collect()
    }

    /// What a reader sees.
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) fn seen(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().filter_map(|(key, row)| match &row.delta {
            KvDelta::Set(value, _) => Some((key, value)),
            KvDelta::Cleared => None,
            KvDelta::Untouched => row.base.as_ref().map(|base| (key, &base.value)),
        })
    }
}
