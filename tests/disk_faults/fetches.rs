//! A fetch whose item cannot be read is told so.

use std::time::Duration;

use duroxide::providers::{Provider, ProviderError, TagFilter};
use forebay::{Forebay, Options};

use crate::disk::{Disk, Fault, Io, Lasting};
use crate::engine_support::{
    LOCK, Turn, activity, begin, bounded, enqueue, enqueue_work, fetch, raised, start,
};

/// An engine that knows nothing yet of what is in its file, so that a fetch has to read.
async fn cold() -> (Disk, Forebay) {
    let disk = Disk::new();
    let forebay = Options::default().open(disk.path()).expect("it opens");
    begin(&forebay, "order", Turn::first("order")).await;
    enqueue(&forebay, raised("order", "bell")).await;
    for instance in 0..200 {
        // So many that opening does not leave all of it in SQLite's cache.
        enqueue(&forebay, start(&format!("order {instance}"))).await;
    }
    enqueue_work(&forebay, activity("order", 2)).await;
    forebay.close().expect("it closes");
    let forebay = Options::default().open(disk.path()).expect("it opens");
    (disk, forebay)
}

fn assert_rolled_back(error: &ProviderError) {
    assert!(error.is_retryable() && error.message.contains("rolled back"), "{error}");
}

/// The first version left a fetch parked when the rows it was to be matched with could not be read. It was
/// matched again at once, without end: the writer ran at full speed and the fetch was never answered, not even
/// when its time was up.
#[tokio::test]
async fn a_fetch_is_answered_although_nothing_can_be_read() {
    let (disk, forebay) = cold().await;
    disk.fail_at(disk.operations() + 1, Fault::Eio, Lasting::Dead);
    let batches = forebay.stats().batches;
    let fetching = forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None);
    let answer = tokio::time::timeout(Duration::from_secs(5), fetching).await;
    let batches = forebay.stats().batches - batches;
    disk.heal();
    assert!(disk.failures() > 0, "the fetch has read");
    assert_rolled_back(&answer.expect("an answer in time").expect_err("nothing could be read"));
    assert!(batches < 10, "{batches} batches for one fetch");
    assert_eq!(fetch(&forebay).await.expect("it is there").item.instance, "order");
}

/// And it told a fetch whose item could not be read that the engine was closed.
#[tokio::test]
async fn a_fetch_is_told_that_its_item_could_not_be_read() {
    for read in 1.. {
        let (disk, forebay) = cold().await;
        let at = disk.operations() + read;
        disk.fail_at(at, Fault::Eio, Lasting::Once);
        let fetched = bounded(forebay.fetch_orchestration_item(LOCK, Duration::ZERO, None)).await;
        let worked = bounded(forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any)).await;
        if disk.failures() == 0 {
            assert!(read > 2, "the fetches have read");
            break;
        }
        if disk.trace()[at as usize - 1].0 != Io::Read {
            continue;
        }
        let errors: Vec<_> = [fetched.err(), worked.err()].into_iter().flatten().collect();
        if let Some(first) = errors.first() {
            assert_rolled_back(first);
        }
        // If the read that failed was one of those that bring memory back to the rows, the engine has latched.
        for later in errors.iter().skip(1) {
            assert!(later.message.contains("has failed"), "{later}");
        }
    }
}

/// What a fetch is given is durable already: it neither waits for the fsync of what shares its batch nor hears of
/// its failure, although it came later.
#[tokio::test]
async fn a_fetch_goes_ahead_of_the_fsync_of_its_batch() {
    const NEVER: Duration = Duration::from_secs(3600);
    for operation in 1.. {
        let disk = Disk::new();
        let forebay = Options::default().open(disk.path()).expect("it opens");
        enqueue_work(&forebay, activity("order", 2)).await;
        forebay.close().expect("it closes");
        let one_batch = Options::default().batch_ops_max(2).commit_delay(NEVER);
        let forebay = one_batch.open(disk.path()).expect("it opens");
        // The first commit to a log syncs its header, whatever it holds.
        let enqueue = |instance| forebay.enqueue_for_orchestrator(start(instance), None);
        let (first, second) = bounded(async { tokio::join!(enqueue("one"), enqueue("two")) }).await;
        first.and(second).expect("they are enqueued");
        let at = disk.operations() + operation;
        disk.fail_at(at, Fault::Eio, Lasting::Once);
        let (enqueued, fetched) = bounded(async {
            tokio::join!(
                enqueue("three"),
                forebay.fetch_work_item(LOCK, Duration::ZERO, None, &TagFilter::Any),
            )
        })
        .await;
        assert!(disk.failures() > 0, "nothing of the batch was synced");
        if disk.trace()[at as usize - 1].0 == Io::Sync {
            let (_, _, attempt) = fetched.expect("it is not concerned").expect("there is work");
            assert_eq!(attempt, 1);
            let error = enqueued.expect_err("its fsync has failed");
            assert!(error.message.contains("unknown"), "{error}");
            break;
        }
    }
}
