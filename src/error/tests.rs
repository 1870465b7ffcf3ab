//! What the errors say.

use super::*;

/// What went wrong, with its name, and the way out.
#[test]
fn errors_name_the_thing_and_the_way_out() {
    let path = || PathBuf::from("/data/app.db");
    let source = || -> Cause { Arc::new(std::io::Error::other("the cause")) };
    let says: [(Error, &[&str]); 23] = [
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
    ];
    for (error, parts) in says {
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text} should say {parts:?}");
        let has_cause = parts.contains(&"the cause");
        assert_eq!(StdError::source(&error).is_some(), has_cause, "{text}");
    }
}
