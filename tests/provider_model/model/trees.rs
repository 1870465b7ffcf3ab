//! Parents and children, and what is deleted or pruned: `ProviderAdmin`'s hierarchy, deletion and pruning.

use super::Model;
use crate::answer::{Answer, Family, Gone};
use crate::op::{Keep, Set, Which, members};
use crate::planned::instance_name;

impl Model {
    pub(crate) fn family(&self, id: &str) -> Family {
        let mut tree = self.tree(id);
        tree.sort();
        Family { children: self.children(id), tree }
    }

    fn children(&self, id: &str) -> Vec<String> {
        let of_id = self.instances.iter().filter(|(_, kept)| kept.seen.parent.as_deref() == Some(id));
        of_id.map(|(child, _)| child.clone()).collect()
    }

    /// An instance, there or not, and everybody that comes from it.
    fn tree(&self, id: &str) -> Vec<String> {
        let mut tree = vec![id.to_owned()];
        for child in self.children(id) {
            tree.extend(self.tree(&child));
        }
        tree
    }

    fn runs(&self, id: &str) -> bool {
        let latest = self.instances.get(id).and_then(|kept| kept.seen.latest().1);
        latest.is_some_and(|latest| latest.status == "Running")
    }

    /// A root goes with all that comes from it; nobody else can be deleted like that.
    pub(super) fn delete(&mut self, id: &str, force: bool) -> Answer {
        match self.instances.get(id) {
            Some(kept) if kept.seen.parent.is_none() => self.delete_these(&self.tree(id), force),
            _ => Answer::Refused,
        }
    }

    /// All or nothing: nobody that runs unless by force, and nobody is left behind without a parent.
    pub(crate) fn delete_these(&mut self, ids: &[String], force: bool) -> Answer {
        let leaves_a_child = ids.iter().any(|id| self.children(id).iter().any(|child| !ids.contains(child)));
        if leaves_a_child || !force && ids.iter().any(|id| self.runs(id)) {
            return Answer::Refused;
        }
        let mut gone = Gone::default();
        ids.iter().for_each(|id| gone += self.delete_one(id));
        Answer::Gone(gone)
    }

    /// Everything that belongs to it, also what came for it before it was there.
    fn delete_one(&mut self, id: &str) -> Gone {
        let executions = self.instances.remove(id).map(|kept| kept.seen.executions);
        let before = self.messages.len() + self.work.len();
        self.messages.retain(|waiting| waiting.to != id);
        self.work.retain(|waiting| waiting.to != id);
        for lease in self.turn_leases.iter_mut().chain(&mut self.work_leases) {
            lease.ended |= lease.instance == id;
        }
        Gone {
            instances: executions.iter().len() as u64,
            executions: executions.iter().flatten().count() as u64,
            events: executions.iter().flatten().map(|(_, execution)| execution.events.len() as u64).sum(),
            queued: (before - self.messages.len() - self.work.len()) as u64,
        }
    }

    /// The trees of finished roots. One in which anybody still runs is passed over.
    pub(super) fn delete_bulk(&mut self, which: Which) -> Gone {
        let mut roots = self.candidates(which);
        roots.retain(|id| self.instances[id].seen.parent.is_none());
        roots.retain(|root| !self.tree(root).iter().any(|id| self.runs(id)));
        let mut gone = Gone::default();
        for root in roots.iter().take(which.limit()) {
            self.tree(root).iter().for_each(|id| gone += self.delete_one(id));
        }
        gone
    }

    /// Those that are there and match, all but the limit, which comes last. Their order the contract leaves
    /// open: as they are named, or else the oldest first.
    fn candidates(&self, which: Which) -> Vec<String> {
        let mut ids = match which.ids {
            Some(ids) => names(ids),
            None => {
                let mut ids = self.newest_first();
                ids.reverse();
                ids
            }
        };
        let before_ms = self.ago_ms(which.before_s);
        ids.retain(|id| {
            let latest = self.instances.get(id).and_then(|kept| kept.seen.latest().1);
            latest.is_some_and(|latest| is_before(latest.completed_ms, before_ms))
        });
        ids
    }

    /// Never the current execution, never one that runs, never one of the last so many.
    pub(super) fn prune(&mut self, id: &str, keep: Keep) -> Answer {
        let before_ms = self.ago_ms(keep.before_s);
        let Some(kept) = self.instances.get_mut(id) else { return Answer::Refused };
        let last = usize::from(keep.last.unwrap_or(0).max(1));
        let stay: Vec<u64> = kept.seen.executions.keys().rev().take(last).copied().collect();
        let mut gone = Gone { instances: 1, ..Gone::default() };
        kept.seen.executions.retain(|number, execution| {
            let goes = !stay.contains(number)
                && execution.status != "Running"
                && is_before(execution.completed_ms, before_ms);
            gone.executions += u64::from(goes);
            gone.events += if goes { execution.events.len() as u64 } else { 0 };
            !goes
        });
        Answer::Gone(gone)
    }

    pub(super) fn prune_bulk(&mut self, which: Which, keep: Keep) -> Gone {
        let mut total = Gone::default();
        // Who has nothing to prune takes no place under the limit.
        let mut left = which.limit();
        for id in self.candidates(which) {
            if left == 0 {
                break;
            }
            if let Answer::Gone(gone) = self.prune(&id, keep) {
                left -= usize::from(gone.executions > 0);
                total += gone;
            }
        }
        total
    }

    fn ago_ms(&self, seconds: Option<u8>) -> Option<u64> {
        seconds.map(|seconds| self.now_ms() - 1000 * u64::from(seconds))
    }
}

pub(crate) fn names(ids: Set) -> Vec<String> {
    members(ids).map(instance_name).collect()
}

fn is_before(completed_ms: Option<u64>, before_ms: Option<u64>) -> bool {
    before_ms.is_none_or(|before_ms| completed_ms.is_some_and(|completed_ms| completed_ms < before_ms))
}

impl Which {
    fn limit(self) -> usize {
        self.limit.map_or(usize::MAX, usize::from)
    }
}
