//! A volume that is smaller than what the log may take: it fills, says so, and there is a way out, also after reopening.
//!
//! Each test runs itself again in a mount namespace of its own, on a volume in memory that goes with it. Where
//! the system allows no such thing (beside Linux, in some containers), it says that nothing was tested.

#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use forebay::{Error, Writer, WriterOptions};

const MIB: u64 = 1 << 20;
/// Says, to the test that is run again, where its volume is.
const VOLUME: &str = "FOREBAY_TEST_VOLUME";

/// Runs `test` on a volume of `mib` MiB.
fn on_a_volume(name: &str, mib: u64, test: impl FnOnce(&Path)) {
    if let Some(volume) = std::env::var_os(VOLUME) {
        return test(&PathBuf::from(volume));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mount = format!(
        "mount -t tmpfs -o size={mib}m tmpfs \"$1\" || exit 99; exec \"$2\" --exact \"$3\" --nocapture"
    );
    for how in ["-m", "-rm"] {
        let mut command = Command::new("unshare");
        command.args([how, "sh", "-c", &mount, "sh"]).arg(folder.path());
        command.arg(std::env::current_exe().expect("this binary")).arg(name).env(VOLUME, folder.path());
        let Ok(output) = command.output() else { continue };
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("running 1 test") {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}\n{errors}");
            return;
        }
    }
    eprintln!("NOT TESTED: no volume can be mounted here");
}

fn opened(path: &Path) -> Writer {
    let options = WriterOptions::default().full_disk_wait(Duration::from_millis(5));
    let writer = options.open(path).expect("it opens");
    let table = |tx: &rusqlite::Transaction<'_>| {
        tx.execute_batch("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, b BLOB)")
    };
    writer.blocking_submit(table).wait().expect("there is room for a table");
    writer
}

fn insert(writer: &Writer, n: i64, bytes: i64) -> Result<usize, Error> {
    writer.blocking_submit(move |tx| tx.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", [n, bytes])).wait()
}

fn rows(writer: &Writer) -> Vec<i64> {
    let all = |connection: &rusqlite::Connection| {
        let mut statement = connection.prepare("SELECT n FROM t ORDER BY n")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok::<_, Error>(rows.collect::<Result<_, _>>()?)
    };
    writer.blocking_read(all).expect("reads go on")
}

/// Inserts until nothing fits any more.
fn fill(writer: &Writer, from: i64, bytes: i64) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for n in from.. {
        match insert(writer, n, bytes) {
            Ok(_) => {
                acknowledged.push(n);
                refused = 0;
            }
            Err(error) => {
                assert!(error.is_retryable() && format!("{error:#}").contains("full"), "{error}");
                refused += 1;
                if refused == 20 {
                    break;
                }
            }
        }
    }
    acknowledged
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn it_is_used_to_nearly_its_end_and_a_deletion_makes_room_again() {
    on_a_volume("it_is_used_to_nearly_its_end_and_a_deletion_makes_room_again", 24, |volume| {
        let path = volume.join("app.db");
        let writer = opened(&path);
        let acknowledged = fill(&writer, 0, 100_000);
        assert_eq!(rows(&writer), acknowledged);
        let log = size(&path.with_extension("db-wal"));
        println!("{} rows, {} KiB of log", acknowledged.len(), log >> 10);
        assert!(acknowledged.len() as u64 * 100_000 > 20 * MIB, "{} rows", acknowledged.len());
        // The way out, beside others that still try.
        std::thread::scope(|scope| {
            scope.spawn(|| (0..10).for_each(|n| drop(insert(&writer, 10_000 + n, 5_000_000))));
            let deleted = writer.blocking_submit(|tx| tx.execute("DELETE FROM t WHERE n < 100", [])).wait();
            assert_eq!(deleted.expect("what makes room is not refused"), 100);
        });
        let kept: Vec<i64> = acknowledged.iter().copied().filter(|n| *n >= 100).collect();
        writer
            .blocking_submit(|tx| tx.execute("DELETE FROM t WHERE n >= 10000", []))
            .wait()
            .expect("deleted");
        assert_eq!(rows(&writer), kept);
        let more = fill(&writer, 20_000, 100_000);
        assert!(more.len() >= 90, "only {} rows more", more.len());
        // And the same after reopening.
        writer.blocking_close().expect("it closes");
        let writer = opened(&path);
        assert_eq!(rows(&writer), [&kept[..], &more[..]].concat());
        writer.blocking_submit(|tx| tx.execute("DELETE FROM t", [])).wait().expect("deleted");
        insert(&writer, 1, 300_000).expect("there is room");
        writer.blocking_close().expect("it closes");
    });
}

#[test]
fn a_single_large_closure_that_does_not_fit_takes_nothing_for_good() {
    on_a_volume("a_single_large_closure_that_does_not_fit_takes_nothing_for_good", 80, |volume| {
        let path = volume.join("app.db");
        let writer = opened(&path);
        // There is enough room not to look before each batch, and much of the log is not in the database yet.
        for n in 0..5 {
            insert(&writer, n, 3_000_000).expect("there is room");
        }
        let large = |tx: &rusqlite::Transaction<'_>| {
            for n in 100..140 {
                tx.execute("INSERT INTO t VALUES (?1, zeroblob(3000000))", [n])?;
            }
            Ok::<_, Error>(())
        };
        let error = writer.blocking_submit(large).wait().expect_err("120 MB do not fit");
        assert!(error.is_retryable() && format!("{error:#}").contains("full"), "{error}");
        for n in 5..10 {
            insert(&writer, n, 3_000_000).expect("there is room again");
        }
        assert_eq!(rows(&writer), (0..10).collect::<Vec<_>>());
        writer.blocking_close().expect("it closes");
    });
}

#[test]
fn a_volume_that_somebody_else_fills_is_used_again_when_there_is_room() {
    on_a_volume("a_volume_that_somebody_else_fills_is_used_again_when_there_is_room", 48, |volume| {
        let path = volume.join("app.db");
        let writer = opened(&path);
        let mut acknowledged: Vec<i64> = (0..40).collect();
        acknowledged.iter().for_each(|n| assert_eq!(insert(&writer, *n, 100_000).expect("there is room"), 1));
        let ballast = volume.join("ballast");
        // As much as there is.
        let full = std::fs::write(&ballast, vec![1; 48 * MIB as usize]);
        full.expect_err("it takes the rest");
        let refused = insert(&writer, 1_000, 100_000).expect_err("no room");
        assert!(refused.is_retryable(), "{refused}");
        std::fs::remove_file(&ballast).expect("removed");
        acknowledged.extend(fill(&writer, 2_000, 100_000));
        assert!(acknowledged.len() > 350, "{} rows", acknowledged.len());
        assert_eq!(rows(&writer), acknowledged);
        writer.blocking_close().expect("it closes");
    });
}

/// However far an open gets before there is no room left: what it made is gone, and what was there is as it was.
#[test]
fn an_open_that_finds_no_room_leaves_nothing() {
    on_a_volume("an_open_that_finds_no_room_leaves_nothing", 2, |volume| {
        let ballast = volume.join("ballast");
        let path = volume.join("app.db");
        let mut refused = 0;
        for (given, journal) in
            [("nothing", ""), ("nothing of it", ""), ("a database", "DELETE"), ("a database", "WAL")]
        {
            // A page less each time.
            for free in (0..64).rev() {
                match given {
                    "a database" => {
                        let connection = rusqlite::Connection::open(&path).expect("it opens");
                        let sql = format!("PRAGMA journal_mode = {journal}; CREATE TABLE t (n)");
                        connection.execute_batch(&sql).expect("there is room");
                    }
                    "nothing of it" => std::fs::write(&path, "").expect("written"),
                    _ => {}
                }
                let before = names_and_versions(volume);
                let _ = std::fs::write(&ballast, vec![1; 2 * MIB as usize]);
                let bytes = size(&ballast).saturating_sub(free * 4096);
                std::fs::File::options()
                    .write(true)
                    .open(&ballast)
                    .and_then(|file| file.set_len(bytes))
                    .expect("cut");
                let opened = WriterOptions::default().full_disk_wait(Duration::from_millis(1)).open(&path);
                #[cfg(feature = "duroxide")]
                let opened = match given {
                    "a database" => opened.map(drop),
                    _ => {
                        // The engine puts tables into it.
                        opened.and_then(|writer| writer.blocking_close()).and_then(|()| {
                            let _ = std::fs::remove_file(&path);
                            if given == "nothing of it" {
                                std::fs::write(&path, "").expect("written");
                            }
                            let _ = std::fs::remove_file(volume.join("app.db-lock"));
                            forebay::Forebay::open(&path).map(drop)
                        })
                    }
                };
                if let Err(error) = opened.map(drop) {
                    refused += 1;
                    std::fs::remove_file(&ballast).expect("removed");
                    assert_eq!(
                        names_and_versions(volume),
                        before,
                        "{given} {journal}, {free} pages: {error}"
                    );
                }
                for file in std::fs::read_dir(volume).expect("listed").flatten() {
                    std::fs::remove_file(file.path()).expect("removed");
                }
            }
        }
        assert!(refused > 20, "only {refused} opens found no room");
        println!("{refused} opens found no room");
    });
}

/// What there is, how long, and how its header says it is written.
fn names_and_versions(volume: &Path) -> Vec<(std::ffi::OsString, usize, Vec<u8>)> {
    let entries = std::fs::read_dir(volume).expect("listed").flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let bytes = std::fs::read(entry.path()).expect("it is read");
            (entry.file_name(), bytes.len(), bytes.get(18..20).unwrap_or_default().to_vec())
        })
        .collect();
    found.sort();
    found
}
