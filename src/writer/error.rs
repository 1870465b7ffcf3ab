//! The errors of a writer that are types of their own: what a closure may return, and what `try_submit` refuses with.
//!
//! Why a trait: a ticket resolves with *one* error, and `?` has to work on it. Where `E: From<forebay::Error>`, as for a
//! thiserror enum with `#[from]` or for anyhow, that error is `E`: the closure's own comes back as it was, forebay's
//! through `From`. `rusqlite::Error` has no such `From`, and is what the shortest closures return
//! (`|tx| tx.execute(..)`); theirs comes back inside of [`Error::Sqlite`].
//!
//! Rejected: a wrapper with a variant for each (`SubmitError<E>`), for which every caller writes a conversion before `?`
//! works, and which is no `std::error::Error` for an `E` like anyhow's; an error type that is always [`Error`], in which the
//! caller's own would have to be found by downcasting; and bounding `E: From<Error>` alone, where `|tx| tx.execute(..)` does
//! not compile.

use std::error::Error as StdError;
use std::fmt;

use crate::error::Error;

mod sealed {
    use crate::error::Error;

    pub trait Sealed {}

    impl<E: From<Error>> Sealed for E {}
    impl Sealed for rusqlite::Error {}
}

/// What a closure may return as its error: anything that is `From<`[`Error`]`>` ([`Error`] itself, an enum of one's own,
/// `anyhow::Error`, `Box<dyn std::error::Error + Send + Sync>`), and `rusqlite::Error`.
///
/// ```
/// use forebay::{Error, Writer};
///
/// #[derive(Debug)]
/// enum Refused {
///     NoSuchAccount,
///     Storage(Error), // with thiserror: Storage(#[from] Error)
/// }
///
/// impl From<Error> for Refused {
///     fn from(error: Error) -> Self {
///         Refused::Storage(error)
///     }
/// }
///
/// impl From<rusqlite::Error> for Refused {
///     fn from(error: rusqlite::Error) -> Self {
///         Refused::Storage(error.into())
///     }
/// }
/// # use forebay::rusqlite;
///
/// fn withdraw(writer: &Writer, account: i64) -> Result<(), Refused> {
///     let ticket = writer.blocking_submit(move |tx| {
///         match tx.execute("UPDATE accounts SET cents = cents - 1 WHERE id = ?1", [account])? {
///             0 => Err(Refused::NoSuchAccount),
///             _ => Ok(()),
///         }
///     });
///     ticket.wait()
/// }
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let writer = Writer::open(folder.path().join("app.db")).unwrap();
/// writer.blocking_submit(|tx| tx.execute_batch("CREATE TABLE accounts (id INTEGER, cents INTEGER)")).wait().unwrap();
/// assert!(matches!(withdraw(&writer, 7), Err(Refused::NoSuchAccount)));
/// writer.blocking_close().unwrap();
/// assert!(matches!(withdraw(&writer, 7), Err(Refused::Storage(Error::Closed))));
/// ```
///
/// Where nothing in a closure says which error it returns, because everything goes through `?`, the compiler asks for it:
/// `|tx| -> Result<_, forebay::Error> { .. }`.
pub trait ClosureError: sealed::Sealed + Send + 'static {
    /// The error that the caller is given: [`Error`] for `rusqlite::Error`, and the same type for all others. Forebay's own
    /// errors are given as this too.
    type Returned: From<Error> + Send + 'static;

    /// The closure's error, as the caller is given it.
    fn into_returned(self) -> Self::Returned;
}

impl<E: From<Error> + Send + 'static> ClosureError for E {
    type Returned = E;

    fn into_returned(self) -> E {
        self
    }
}

impl ClosureError for rusqlite::Error {
    type Returned = Error;

    fn into_returned(self) -> Error {
        self.into()
    }
}

/// Nothing was submitted by [`try_submit`](crate::Writer::try_submit): why, and the closure, to try again with.
///
/// It says what its [`Error`] says, and turns into that with `?`.
pub struct TrySubmitError<F> {
    closure: F,
    error: Error,
}

impl<F> TrySubmitError<F> {
    pub(super) fn new(closure: F, error: Error) -> Self {
        Self { closure, error }
    }

    /// Why: [`Error::Full`], [`Error::Closed`], [`Error::Failed`] or [`Error::Forked`].
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// The closure that was not submitted.
    pub fn into_inner(self) -> F {
        self.closure
    }

    /// The closure that was not submitted, and why.
    pub fn into_parts(self) -> (F, Error) {
        (self.closure, self.error)
    }
}

impl<F> From<TrySubmitError<F>> for Error {
    fn from(refused: TrySubmitError<F>) -> Self {
        refused.error
    }
}

impl<F> fmt::Debug for TrySubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrySubmitError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for TrySubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<F> StdError for TrySubmitError<F> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}
