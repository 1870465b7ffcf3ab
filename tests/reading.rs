//! Reads: what would wait for itself says so, and awaited reads need no thread of the runtime that awaits them.

use std::sync::mpsc;
use std::time::Duration;

use forebay::{Error, Options, Writer};

/// A test that would hang fails after this long instead.
fn bounded<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it ends in time, without a panic")
}

fn nested(writer: &Writer, levels: usize) -> Result<usize, Error> {
    writer.read(|_| if levels == 1 { Ok(1) } else { Ok(1 + nested(writer, levels - 1)?) })
}

#[test]
fn a_read_inside_a_read_goes_on_or_says_that_it_would_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db"), Options::default().readers(2)).unwrap();
    bounded(move || {
        assert_eq!(nested(&writer, 2).unwrap(), 2);
        assert!(matches!(nested(&writer, 3), Err(Error::WouldDeadlock { .. })));
        assert_eq!(nested(&writer, 2).unwrap(), 2, "all connections came back");
    });
}

#[test]
fn closing_inside_a_read_says_that_it_would_wait_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Writer::open(folder.path().join("app.db"), Options::default()).unwrap();
    bounded(move || {
        let closed = writer.read(|_| writer.close());
        assert!(matches!(closed, Err(Error::WouldDeadlock { .. })), "{closed:?}");
        writer.close().unwrap();
    });
}
