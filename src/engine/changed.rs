//! Which commit last changed the rows of an instance, for readers: what one of them has seen it may show only
//! when that commit is durable. Known for as long as it is not.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::buffer::CommitNo;

/// See the module's documentation. Bounded by what is committed and not on the disk yet.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: HashMap<Arc<str>, CommitNo>,
    /// In the order of their numbers.
    order: VecDeque<(CommitNo, Arc<str>)>,
}

impl Changed {
    /// To be called before the commit begins: a reader that sees any of it must find the number.
    pub(super) fn note<'a>(
        &self,
        no: CommitNo,
        instances: impl Iterator<Item = &'a Arc<str>>,
        durable: CommitNo,
    ) {
        let mut inner = self.inner.lock();
        while inner.order.front().is_some_and(|(no, _)| *no <= durable)
            && let Some((no, instance)) = inner.order.pop_front()
        {
            if inner.last.get(&instance) == Some(&no) {
                inner.last.remove(&instance);
            }
        }
        for instance in instances {
            if inner.last.insert(Arc::clone(instance), no) != Some(no) {
                inner.order.push_back((no, Arc::clone(instance)));
            }
        }
    }

    /// To be called when the rows have been read. 0 if everything of the instance is durable.
    pub(crate) fn last(&self, instance: &str) -> CommitNo {
        self.inner.lock().last.get(instance).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_change_is_known_until_it_is_durable() {
        let changed = Changed::default();
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        changed.note(1, [&a, &b, &a].into_iter(), 0);
        changed.note(2, [&a].into_iter(), 0);
        assert_eq!((changed.last("a"), changed.last("b"), changed.last("c")), (2, 1, 0));
        changed.note(3, std::iter::empty(), 1);
        assert_eq!((changed.last("a"), changed.last("b")), (2, 0));
        changed.note(3, std::iter::empty(), 2);
        let inner = changed.inner.lock();
        assert!(inner.last.is_empty() && inner.order.is_empty());
    }
}
