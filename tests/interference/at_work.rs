//! An engine at work: an instance runs, and a turn and an activity of it are in the hands of the test.

use duroxide::providers::{OrchestrationItem, Provider, WorkItem};
use forebay::Forebay;

use crate::engine_support::polled::{Hold, Polled};
use crate::engine_support::{
    Fetched, Turn, activity, begin, completed, enqueue, enqueue_work, fetch, fetch_work, heard, raised, start,
};

pub(crate) struct AtWork {
    pub(crate) turn: Fetched<OrchestrationItem>,
    pub(crate) work: Fetched<WorkItem>,
}

impl AtWork {
    pub(crate) async fn on(forebay: &Forebay) -> Self {
        begin(forebay, "order", Turn::first("order")).await;
        enqueue(forebay, raised("order", "bell")).await;
        enqueue_work(forebay, activity("order", 2)).await;
        let turn = fetch(forebay).await.expect("a turn");
        Self { turn, work: fetch_work(forebay).await.expect("work") }
    }

    /// What the turn has come to.
    pub(crate) fn done() -> Turn {
        Turn::of(1, vec![heard("order", 2, "ring")])
    }

    /// Acknowledges both and starts another instance, in one batch; each is told that nothing of it happened,
    /// that it may be tried again, and why.
    ///
    /// One batch: a start alone would be given to a fetch that is parked, which would hear of it as well.
    pub(crate) fn is_rolled_back(&self, forebay: &Forebay, because: &str) {
        let hold = Hold::on(forebay);
        let calls = [
            Polled::submitted(Self::done().ack(forebay, &self.turn.token)),
            Polled::submitted(forebay.ack_work_item(&self.work.token, Some(completed("order", 2)))),
            Polled::submitted(forebay.enqueue_for_orchestrator(start("other"), None)),
        ];
        hold.release();
        for call in calls {
            let error = call.finish().expect_err("nothing can be written");
            assert!(error.is_retryable(), "{error}");
            assert!(error.message.contains("rolled back") && error.message.contains(because), "{error}");
        }
    }
}
