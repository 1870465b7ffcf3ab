//! A full disk: who writes is told so, not before there was time to make room, and the engine goes on where it was.

use std::time::{Duration, Instant};

use forebay::{Error, Writer, WriterOptions};

use crate::disk::{Disk, Fault, Lasting};

/// What an answer is held back for here, instead of the two seconds of a foreign lock.
const WAIT: Duration = Duration::from_millis(300);

fn insert(writer: &Writer, n: i64) -> Result<usize, Error> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1, zeroblob(20000))", [n])).wait()
}

/// duroxide tries an acknowledgement again for 310 ms in all, so an answer at once would be an answer too soon.
#[test]
fn a_full_disk_is_answered_no_sooner_than_a_foreign_lock_and_nothing_is_lost() {
    let disk = Disk::new();
    let writer = WriterOptions::default().full_disk_wait(WAIT).open(disk.path()).expect("it opens");
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER, b BLOB)")).wait().expect("made");
    insert(&writer, 1).expect("there is room");
    disk.fail_at(disk.operations() + 1, Fault::Full, Lasting::ForGood);
    for _ in 0..2 {
        let began = Instant::now();
        let error = insert(&writer, 2).expect_err("there is no room");
        assert!(error.is_retryable() && format!("{error:#}").contains("full"), "{error}");
        assert!(began.elapsed() >= WAIT, "answered after {:?}", began.elapsed());
    }
    let reader = |connection: &rusqlite::Connection| {
        connection.query_row("SELECT count(*), sum(n) FROM t", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
    };
    assert_eq!(writer.blocking_read(reader).expect("reads go on"), (1, 1));
    disk.heal();
    let began = Instant::now();
    insert(&writer, 2).expect("there is room again");
    assert!(began.elapsed() < WAIT * 50, "a disk with room is not waited for");
    assert_eq!(writer.blocking_read(reader).expect("it is read"), (2, 3));
    writer.blocking_close().expect("it closes");
    let writer = Writer::open(disk.path()).expect("it opens");
    assert_eq!(writer.blocking_read(reader).expect("it is read"), (2, 3));
}

/// What a full disk does to the log: the space that it takes is used again.
#[test]
fn a_checkpoint_after_a_full_disk_has_the_log_used_again_from_its_start() {
    let disk = Disk::new();
    let options = WriterOptions::default().full_disk_wait(Duration::ZERO);
    let writer = options.open(disk.path()).expect("it opens");
    writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE t (n INTEGER, b BLOB)")).wait().expect("made");
    for n in 0..20 {
        insert(&writer, n).expect("there is room");
    }
    let checkpoints = writer.stats().checkpoints;
    disk.fail_at(disk.operations() + 1, Fault::Full, Lasting::Once);
    insert(&writer, 20).expect_err("there was no room once");
    insert(&writer, 20).expect("the log is written from its start");
    assert!(writer.stats().checkpoints > checkpoints, "nothing was moved into the database");
    writer.blocking_close().expect("it closes");
}
