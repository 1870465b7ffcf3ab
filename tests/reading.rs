//! Reads: what would wait for itself says so, and awaited reads need no thread of the runtime that awaits them.

use std::sync::mpsc;
use std::time::Duration;

use forebay::{Error, Writer, WriterOptions};

/// A test that would hang fails after this long instead.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it ends in time, without a panic")
}

fn nested(writer: &Writer, levels: usize) -> Result<usize, Error> {
    writer.blocking_read(|_| {
        if levels == 1 { Ok(1) } else { nested(writer, levels - 1).map(|levels| 1 + levels) }
    })
}

#[test]
fn a_read_inside_a_read_goes_on_or_says_that_it_would_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = WriterOptions::default().readers(2).open(folder.path().join("app.db")).unwrap();
    bounded(move || {
        assert_eq!(nested(&writer, 2).unwrap(), 2);
        assert!(matches!(nested(&writer, 3), Err(Error::WouldDeadlock { .. })));
        assert_eq!(nested(&writer, 2).unwrap(), 2, "all connections came back");
    });
}

#[test]
fn closing_inside_a_read_says_that_it_would_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db")).unwrap();
    bounded(move || {
        let closed = writer.blocking_read(|_| writer.blocking_close());
        assert!(matches!(closed, Err(Error::WouldDeadlock { .. })), "{closed:?}");
        writer.blocking_close().unwrap();
    });
}

/// Whoever waits for a read may hold the last blocking thread of its runtime. The first version read on those, and none
/// of these ended.
#[cfg(feature = "duroxide")]
#[test]
fn reads_that_are_waited_for_on_every_blocking_thread_end() {
    use duroxide::providers::{Provider, ProviderAdmin};
    let folder = tempfile::tempdir().unwrap();
    let store = forebay::Options::default().open(folder.path().join("app.db")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(2)
        .build()
        .unwrap();
    bounded(move || {
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let (store, handle) = (store.clone(), runtime.handle().clone());
                runtime.spawn_blocking(move || {
                    handle.block_on(async {
                        store.list_instances().await.unwrap();
                        store.get_system_metrics().await.unwrap();
                        store.read("nobody").await.unwrap()
                    })
                })
            })
            .collect();
        for read in waiting {
            assert!(runtime.block_on(read).unwrap().is_empty());
        }
        store.close().unwrap();
    });
}

/// A runtime that goes does not close the engine.
#[cfg(feature = "duroxide")]
#[test]
fn a_read_outlives_the_runtime_that_asked_first() {
    use duroxide::providers::Provider;
    let folder = tempfile::tempdir().unwrap();
    let store = forebay::Options::default().open(folder.path().join("app.db")).unwrap();
    bounded(move || {
        for _ in 0..3 {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            assert!(runtime.block_on(store.read("nobody")).unwrap().is_empty());
            runtime.shutdown_background();
        }
        // And on no runtime at all.
        assert!(pollster::block_on(store.read("nobody")).unwrap().is_empty());
        store.close().unwrap();
    });
}
