//! Who owns a database file: one process, by an operating system lock on `<file>-lock` beside it.
//!
//! The lock goes away with its process however that ends. The file stays, like SQLite's own `-wal`: removing
//! it would let two processes lock two different files of the same name.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Holds the ownership of a database file until it is dropped.
#[derive(Debug)]
pub(crate) struct FileOwner {
    locked: File,
}

impl Drop for FileOwner {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started holds a copy of the handle until it
        // runs its own program, and the lock with it.
        let _ = self.locked.unlock();
    }
}

impl FileOwner {
    pub(crate) fn acquire(database: &Path) -> Result<Self, Error> {
        let path = beside(database, "-lock");
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Error::ReadOnly { path: database.into() }
            }
            _ => Error::io(format!("opening {}", path.display()), error),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = file.read_to_string(&mut text);
                return Err(Error::OwnedByProcess { path: database.into(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => {
                return Err(Error::io(format!("locking {}", path.display()), error));
            }
        }
        // For the error message of whoever comes second; the lock itself does not depend on it.
        let noted = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()));
        noted.map_err(|error| Error::io(format!("writing {}", path.display()), error))?;
        Ok(Self { locked: file })
    }
}

pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Checks what can be checked before SQLite sees the path, and makes it canonical, so that two spellings of
/// one file are one file.
pub(crate) fn prepare_path(path: &Path) -> Result<PathBuf, Error> {
    let name = path.file_name().ok_or_else(|| {
        Error::io(format!("opening {}", path.display()), io::Error::from(io::ErrorKind::IsADirectory))
    })?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::MissingFolder { folder: folder.into() });
    }
    let reading = |error| Error::io(format!("reading {}", path.display()), error);
    let canonical = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(reading(io::ErrorKind::IsADirectory.into())),
        Ok(metadata) if metadata.permissions().readonly() => {
            return Err(Error::ReadOnly { path: path.into() });
        }
        Ok(_writable) => fs::canonicalize(path).map_err(reading)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // The file that SQLite is about to create is where the link points to. A chain of links ends: a
            // circle is another error than "not found".
            Ok(target) => return prepare_path(&folder.join(target)),
            Err(_no_link) => fs::canonicalize(folder).map_err(reading)?.join(name),
        },
        Err(error) => return Err(reading(error)),
    };
    if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo")
        && let Some(kind) = network_file_system(&mounts, &canonical)
    {
        return Err(Error::NetworkFileSystem { path: canonical, kind });
    }
    Ok(canonical)
}

/// File systems whose locks or shared memory do not reach across their clients.
const NETWORK_FILE_SYSTEMS: &[&str] = &[
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fuse.glusterfs",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "gpfs",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "smb2",
    "smb3",
    "smbfs",
];

/// The kind of network file system `path` is on, by the longest mount point that holds it (the last one
/// wins where several are mounted over each other). The format is proc_pid_mountinfo(5).
fn network_file_system(mounts: &str, path: &Path) -> Option<String> {
    let mut longest = (0, None);
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        let Some(point) = mount.split(' ').nth(4) else { continue };
        let point = PathBuf::from(unescape(point));
        let depth = point.components().count();
        if path.starts_with(&point) && depth >= longest.0 {
            longest = (depth, kind.split(' ').next());
        }
    }
    let kind = longest.1?;
    NETWORK_FILE_SYSTEMS.contains(&kind).then(|| kind.to_string())
}

/// mountinfo writes space, tab, newline and backslash as `\ooo`.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 21 0:27 / /mnt/share rw,relatime - nfs4 server:/export rw
31 30 0:28 / /mnt/share/local rw - xfs /dev/vdb rw
32 21 0:29 / /mnt/with\\040space rw - cifs //server/share rw
";

    fn kind(path: &str) -> Option<String> {
        network_file_system(MOUNTS, Path::new(path))
    }

    #[test]
    fn the_longest_mount_point_decides() {
        assert_eq!(kind("/home/app.db"), None);
        assert_eq!(kind("/mnt/share/app.db").as_deref(), Some("nfs4"));
        assert_eq!(kind("/mnt/share/local/app.db"), None);
        assert_eq!(kind("/mnt/shared/app.db"), None, "a longer name is not a subfolder");
        assert_eq!(kind("/mnt/with space/app.db").as_deref(), Some("cifs"));
    }

    #[test]
    fn a_second_owner_is_told_the_pid_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let first = FileOwner::acquire(&database).unwrap();
        let error = FileOwner::acquire(&database).unwrap_err();
        let own_pid = std::process::id();
        assert!(matches!(error, Error::OwnedByProcess { pid: Some(pid), .. } if pid == own_pid), "{error}");
        drop(first);
        FileOwner::acquire(&database).unwrap();
    }
}
