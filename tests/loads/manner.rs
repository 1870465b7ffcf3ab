//! What a load is told when a call fails, and what it does then.

use forebay::Error;

use super::record::Record;
use crate::disk::Disk;

/// What an error says about the operation it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Heard {
    /// Nothing of the batch happened; it may be tried again.
    RolledBack,
    /// It may have happened or not; the engine has failed.
    Unknown,
    /// Not attempted; the engine failed before.
    Failed,
    /// An error of this call's own: opening, closing, reading, a closure's statement.
    Own,
}

/// Why a load ends, or would.
#[derive(Debug, Clone)]
pub(crate) struct Stopped {
    pub(crate) heard: Heard,
    pub(crate) says: String,
}

impl From<&Error> for Stopped {
    fn from(error: &Error) -> Self {
        let heard = match error {
            Error::RolledBack { .. } => Heard::RolledBack,
            Error::OutcomeUnknown { .. } => Heard::Unknown,
            Error::Failed { .. } => Heard::Failed,
            _ => Heard::Own,
        };
        assert_eq!(error.is_retryable(), heard == Heard::RolledBack, "only what was rolled back: {error}");
        Self { heard, says: format!("{error:#}") }
    }
}

#[cfg(feature = "duroxide")]
impl From<&duroxide::providers::ProviderError> for Stopped {
    /// duroxide's error has a text and a retry class; the texts are `Error`'s.
    fn from(error: &duroxide::providers::ProviderError) -> Self {
        let heard = match &error.message {
            says if says.starts_with("the batch was rolled back") => Heard::RolledBack,
            says if says.starts_with("outcome unknown") => Heard::Unknown,
            says if says.starts_with("the engine failed earlier") => Heard::Failed,
            _ => Heard::Own,
        };
        assert_eq!(error.retryable, heard == Heard::RolledBack, "only what was rolled back: {error}");
        Self { heard, says: error.message.clone() }
    }
}

/// What a load does when it is told of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnError {
    /// It ends.
    Stop,
    /// It tries again whatever may be tried again, at last on a disk that has been healed, and goes on. It ends
    /// only when the engine has failed, having made sure that it stays so.
    Persist,
}

/// Whose error may be a call's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A write of the engine: part of a batch, and nothing else can go wrong with it in these loads.
    Write,
    /// It reads, or opens, or runs statements of the caller.
    Other,
}

/// On the third try the disk is healed, so the fourth at the latest succeeds.
const TRIES_ON_A_BAD_DISK: usize = 2;

/// See [`OnError`].
pub(crate) struct Manner<'a> {
    disk: &'a Disk,
    on_error: OnError,
    tries: usize,
    /// Whether an opening has succeeded.
    is_made: bool,
    pub(crate) wrong: Vec<String>,
    pub(crate) heard: Vec<Heard>,
}

impl<'a> Manner<'a> {
    pub(crate) fn new(disk: &'a Disk, on_error: OnError) -> Self {
        Self { disk, on_error, tries: 0, is_made: false, wrong: Vec::new(), heard: Vec::new() }
    }

    pub(crate) fn persists(&self) -> bool {
        self.on_error == OnError::Persist
    }

    pub(crate) fn succeeded(&mut self) {
        self.is_made = true;
        self.tries = 0;
    }

    /// `Ok` if the call is to be made again.
    pub(crate) fn again(&mut self, call: Call, stopped: Stopped) -> Result<(), Stopped> {
        self.heard.push(stopped.heard);
        if !self.persists() || matches!(stopped.heard, Heard::Unknown | Heard::Failed) {
            return Err(stopped);
        }
        if call == Call::Write && stopped.heard == Heard::Own {
            self.wrong.push(format!("WRONG ERROR for a write: {}", stopped.says));
            return Err(stopped);
        }
        self.tries += 1;
        if self.tries > TRIES_ON_A_BAD_DISK + 1 {
            self.wrong.push(format!("DOES NOT GO ON although the disk is healed: {}", stopped.says));
            return Err(stopped);
        }
        if self.tries >= TRIES_ON_A_BAD_DISK {
            self.disk.heal();
        }
        Ok(())
    }

    /// The end of a session: what its work has come to, and closing. If closing failed, what was acknowledged is
    /// there all the same, so a load that persists opens again.
    pub(crate) fn ended<P>(
        &mut self,
        record: &mut Record<P>,
        done: Result<(), Stopped>,
        closed: Result<(), Error>,
    ) -> Result<(), Stopped> {
        self.check_syncs();
        done?;
        match closed.map_err(|error| Stopped::from(&error)) {
            Ok(()) => record.close(),
            Err(stopped) => {
                self.heard.push(stopped.heard);
                if !self.persists() {
                    return Err(stopped);
                }
                self.disk.heal();
            }
        }
        Ok(())
    }

    /// Whether it is to be made sure that the engine stays failed.
    pub(crate) fn is_latched(&self, done: &Result<(), Stopped>) -> bool {
        let told = done.as_ref().err().map(|stopped| stopped.heard);
        self.persists() && matches!(told, Some(Heard::Unknown | Heard::Failed))
    }

    /// A call on an engine that has failed, on a disk that works again.
    pub(crate) fn expect_failed(&mut self, what: &str, answer: Result<(), Stopped>) {
        match answer {
            Err(Stopped { heard: Heard::Failed, .. }) => {}
            other => self.wrong.push(format!("NOT LATCHED: {what} is answered with {other:?}")),
        }
    }

    /// Called when opening has failed. The first opening makes the file, with a rollback journal, and SQLite itself
    /// plays that back: it writes the pages once more and syncs them, in a file that holds nothing yet.
    pub(crate) fn check_syncs_of_opening(&mut self) {
        if self.is_made {
            self.check_syncs();
        } else {
            let _ = self.disk.take_syncs_after_failure();
        }
    }

    /// Called when the engine has let go of the file: what it did after a sync had failed.
    fn check_syncs(&mut self) {
        let retried = self.disk.take_syncs_after_failure();
        if !retried.is_empty() && self.persists() {
            self.wrong.push(format!("SYNC RETRIED after one that failed: {retried:?}"));
        }
    }
}
