//! Whether the file that is open is still the one its path names: somebody may have removed it, or put another
//! one in its place (a backup restored under a running process). SQLite goes on writing to the file that nobody
//! can open any more and says nothing, so what is acknowledged would be gone with the process.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// The file a path named when it was opened.
#[derive(Debug)]
pub(super) struct Identity {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl Identity {
    /// `None` where it cannot be told: not on unix, or not on a file system that this process sees (a VFS of a
    /// test).
    pub(super) fn of(path: &Path) -> Option<Self> {
        Some(Self { path: path.into(), device_and_inode: device_and_inode(path)? })
    }

    /// An error if the path names nothing now, or another file.
    pub(super) fn check(&self) -> Result<(), Error> {
        let found = device_and_inode(&self.path);
        if found == Some(self.device_and_inode) {
            return Ok(());
        }
        let what = if found.is_none() { "removed" } else { "replaced by another file" };
        let doing = format!("{} was {what} while it was open", self.path.display());
        Err(Error::io(doing, std::io::Error::other("nothing written from here on would be found again")))
    }
}

#[cfg(unix)]
fn device_and_inode(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn device_and_inode(_path: &Path) -> Option<(u64, u64)> {
    None
}
