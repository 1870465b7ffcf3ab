//! What the errors say.

use std::path::PathBuf;

use super::*;

/// What went wrong, with its name, and the way out.
#[test]
fn errors_name_the_thing_and_the_way_out() {
    let path = || PathBuf::from("/data/app.db");
    let source = || -> Cause { Arc::new(std::io::Error::other("the cause")) };
    let says: [(Error, &[&str]); 28] = [
        (Error::OwnedByProcess { path: path(), pid: Some(7) }, &["/data/app.db", "pid 7", "stop it"]),
        (Error::OwnedByProcess { path: path(), pid: None }, &["/data/app.db", "has ended", "stop it"]),
        (Error::NotAPath { given: path(), meant: Some("app.db".into()) }, &["/data/app.db", "\"app.db\""]),
        (Error::NotAPath { given: path(), meant: None }, &["/data/app.db", "in_memory"]),
        (Error::NotAFile { path: path(), kind: "a socket" }, &["/data/app.db", "a socket"]),
        (Error::PathTooLong { path: path(), bytes: 600, limit: 504 }, &["/data/app.db", "600", "504"]),
        (Error::HardLinked { path: path(), links: 2 }, &["/data/app.db", "2 names", "copy"]),
        (Error::OpenUnderAnotherName { path: path(), open: "/b".into() }, &["/data/app.db", "/b", "close"]),
        (Error::Locked { path: path(), source: source() }, &["/data/app.db", "another", "the cause"]),
        (Error::OnOpen { path: Some(path()), source: source() }, &["on_open", "/data/app.db", "the cause"]),
        (Error::Gone { path: path(), replaced: false }, &["/data/app.db", "put the file back", "empty"]),
        (Error::Gone { path: path(), replaced: true }, &["/data/app.db", "put the file back", "replaced"]),
        (Error::NotAFolder { folder: path() }, &["/data/app.db", "not a folder"]),
        (Error::Forked { pid: 7 }, &["process 7", "fork before"]),
        (
            Error::NetworkFileSystem { path: path(), kind: "nfs4".into() },
            &["/data/app.db", "nfs4", "local disk"],
        ),
        (Error::ReadOnly { path: path() }, &["/data/app.db", "permissions"]),
        (Error::Full, &["full", "buffer_ops_max"]),
        (Error::Closed, &["closed", "open"]),
        (
            Error::WouldDeadlock { what: "waiting inside", instead: "wait outside" },
            &["waiting inside", "for ever", "wait outside"],
        ),
        (Error::Panicked { message: "on purpose".into() }, &["panicked", "on purpose"]),
        (Error::RolledBack { source: source() }, &["rolled back", "try again", "the cause"]),
        (
            Error::OutcomeUnknown { source: source() },
            &["may or may not", "open the database again", "the cause"],
        ),
        (Error::Failed { source: source() }, &["failed earlier", "reopen", "the cause"]),
        (
            Error::io("reading /data/app.db", std::io::Error::other("the cause")),
            &["/data/app.db", "the cause"],
        ),
        (Error::Corrupt { record: "row 7".into(), source: source() }, &["row 7", ".recover", "the cause"]),
        (Error::not_found("instance a"), &["instance a not found"]),
        (Error::internal("two and two are five"), &["five", "bug in forebay"]),
        (Error::rolled_back("the cause"), &["try again", "the cause"]),
    ];
    for (error, parts) in says {
        let text = format!("{error:#}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text} should say {parts:?}");
        let has_cause = parts.contains(&"the cause");
        assert_eq!(StdError::source(&error).is_some(), has_cause, "{text}");
        assert!(!error.to_string().contains("the cause"), "{error} is said again by who prints the chain");
    }
}

#[test]
fn the_chain_says_everything_once() {
    let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
    let full = Error::from(rusqlite::Error::SqliteFailure(failure, Some("disk is full".into())));
    let error = Error::Failed { source: Arc::new(Error::RolledBack { source: Arc::new(full) }) };
    let text = format!("{error:#}");
    for part in ["failed earlier", "rolled back", "SQLite: disk is full", &failure.to_string()] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
    // Without a message of its own rusqlite says what its cause says.
    let plain = Error::from(rusqlite::Error::SqliteFailure(failure, None));
    assert_eq!(format!("{plain:#}"), plain.to_string());
}

#[test]
fn an_error_of_the_callers_own_is_said_as_it_is() {
    let error = Error::operation(std::io::Error::other(Error::not_found("the account")));
    assert_eq!(error.to_string(), "the account not found");
    assert_eq!(format!("{error:#}"), "the account not found");
}
