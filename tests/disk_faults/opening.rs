//! Opening when the file cannot be made what it has to be.

use forebay::Writer;

use crate::disk::{Disk, Fault, Lasting};

/// The first version took one step of `PRAGMA journal_mode = WAL`, which gives the row that says "wal"; the commit
/// that makes it true comes after, and its failure went unseen. The file was then written with a rollback journal,
/// and readers and writer were in each other's way.
#[test]
fn a_file_that_cannot_be_put_into_wal_mode_is_not_opened() {
    let mut refused = 0;
    for operation in 1.. {
        let disk = Disk::new();
        disk.fail_at(operation, Fault::Eio, Lasting::Once);
        let opened = Writer::open(disk.path());
        let was_hit = disk.failures() > 0;
        disk.heal();
        if let Ok(writer) = opened {
            let before = disk.trace().len();
            let made =
                writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE numbers (number INTEGER)")).wait();
            made.expect("the disk works");
            let journals =
                disk.trace().drain(before..).filter(|(_, name)| name.ends_with("-journal")).count();
            assert_eq!(journals, 0, "a rollback journal is written to after operation {operation} failed");
        } else {
            refused += 1;
        }
        if !was_hit {
            break;
        }
    }
    assert!(refused > 5, "opening depends on its operations");
}
