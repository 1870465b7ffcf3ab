//! Whether this process is still the one in which something was opened.
//!
//! After `fork` the child has every handle of its parent and none of its threads: nobody would answer what it
//! submits, and closing SQLite's connections there breaks them for the parent. So each handle remembers where it was
//! opened, and refuses to work anywhere else. A counter that only a child raises makes the check one load; asking for
//! the process id would be a system call for every submission.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;

/// How many forks lie between the process that first opened something and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);
/// The process id; 0 until it is first asked for in a process.
static PID: AtomicU32 = AtomicU32::new(0);
static HANDLER: Once = Once::new();

/// The process in which something was opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    forks: u32,
    pid: u32,
}

impl Origin {
    /// This process.
    pub(crate) fn here() -> Self {
        HANDLER.call_once(install);
        let pid = match PID.load(Ordering::Relaxed) {
            0 => {
                PID.store(std::process::id(), Ordering::Relaxed);
                std::process::id()
            }
            known => known,
        };
        Self { forks: FORKS.load(Ordering::Relaxed), pid }
    }

    pub(crate) fn is_here(self) -> bool {
        FORKS.load(Ordering::Relaxed) == self.forks
    }

    /// [`Error::Forked`] in any other process.
    pub(crate) fn check(self) -> Result<(), Error> {
        if self.is_here() { Ok(()) } else { Err(Error::Forked { pid: self.pid }) }
    }
}

/// Without the handler (no memory for it) a child is not told; nothing else depends on it.
#[cfg(unix)]
#[allow(unsafe_code)]
fn install() {
    extern "C" fn in_the_child() {
        FORKS.fetch_add(1, Ordering::Relaxed);
        PID.store(0, Ordering::Relaxed);
    }
    // SAFETY: the handler is a function of this program with the signature that is asked for, and lives as long as
    // the program. It does nothing but two operations on static atomics, which are allowed between `fork` and `exec`.
    unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
}

#[cfg(not(unix))]
fn install() {}
