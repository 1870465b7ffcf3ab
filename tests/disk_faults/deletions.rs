//! Deleting in bulk when what decides about it cannot be read.

use duroxide::providers::{InstanceFilter, Provider, ProviderAdmin};
use forebay::{Forebay, Options};

use crate::disk::{Disk, Fault, Lasting};
use crate::engine_support::{Turn, begin, bounded};

/// A finished root whose child still runs, in a file that nobody has read yet.
async fn family() -> (Disk, Forebay) {
    let disk = Disk::new();
    let forebay = Options::default().open(disk.path()).expect("it opens");
    begin(&forebay, "parent", Turn::first("parent").ending("Completed")).await;
    let mut child = Turn::first("child");
    child.metadata.parent_instance_id = Some("parent".into());
    begin(&forebay, "child", child).await;
    for no in 0..60 {
        // So many that the rows of executions are on pages of their own.
        let id = format!("{no:02} {}", "long ".repeat(200));
        begin(&forebay, &id, Turn::first(&id)).await;
    }
    forebay.close().expect("it closes");
    let options = Options::default();
    let forebay = options.open(disk.path()).expect("it opens");
    (disk, forebay)
}

/// The first version took a member of the tree for finished when its status could not be read, and deleted a
/// child that was running.
#[tokio::test]
async fn a_tree_whose_members_cannot_be_read_is_not_deleted() {
    let mut failed = 0;
    for read in 1.. {
        let (disk, forebay) = family().await;
        disk.fail_at(disk.operations() + read, Fault::Eio, Lasting::Once);
        let deleted = bounded(forebay.delete_instance_bulk(InstanceFilter::default())).await;
        let was_hit = disk.failures() > 0;
        disk.heal();
        if let Ok(deleted) = &deleted {
            assert_eq!(
                deleted.instances_deleted, 0,
                "nothing is finished with all its children (read {read})"
            );
        }
        failed += u64::from(deleted.is_err());
        drop(forebay);
        let forebay = Options::default().open(disk.path()).expect("it opens");
        let child = bounded(forebay.read("child")).await.expect("it is read");
        assert_eq!(child.len(), 1, "the child still runs (read {read})");
        if !was_hit {
            break;
        }
    }
    assert!(failed > 0, "no read that decides has failed");
}
