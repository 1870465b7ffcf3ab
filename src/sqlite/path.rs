//! What can be told about a path before anything is opened or made at it.

use std::borrow::Cow;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The longest path, in bytes, that SQLite's unix VFS takes: 512, less what it appends (`-journal`).
const PATH_BYTES_MAX: usize = 504;

/// The longest name of a file, in bytes, that file systems take: 255, less what SQLite appends.
const NAME_BYTES_MAX: usize = 247;

pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Checks what can be checked before SQLite sees the path, and makes it canonical, so that two spellings of
/// one file are one file.
pub(crate) fn prepare_path(path: &Path) -> Result<PathBuf, Error> {
    refuse_url(path)?;
    let canonical = canonical(path)?;
    let bytes = canonical.as_os_str().len();
    let name_bytes = canonical.file_name().map_or(0, |name| name.len());
    if bytes > PATH_BYTES_MAX {
        return Err(Error::PathTooLong { path: canonical, bytes, limit: PATH_BYTES_MAX });
    }
    if name_bytes > NAME_BYTES_MAX {
        return Err(Error::PathTooLong { path: canonical, bytes: name_bytes, limit: NAME_BYTES_MAX });
    }
    if let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo")
        && let Some(kind) = network_file_system(&mounts, &canonical)
    {
        return Err(Error::NetworkFileSystem { path: canonical, kind });
    }
    Ok(canonical)
}

/// What other libraries take for more than a path would silently become the name of a file here.
fn refuse_url(path: &Path) -> Result<(), Error> {
    let given: Cow<'_, str> = path.as_os_str().to_string_lossy();
    let prefix = ["sqlite:", "sqlite3:", "file:", ":memory:"].into_iter().find(|p| given.starts_with(p));
    let Some(prefix) = prefix else { return Ok(()) };
    let rest = &given[prefix.len()..];
    if prefix == ":memory:" || rest.contains(":memory:") || rest.contains("mode=memory") {
        return Err(Error::NotAPath { given: path.into(), meant: None });
    }
    let meant = rest.strip_prefix("//").unwrap_or(rest);
    let meant = meant.split('?').next().unwrap_or(meant);
    Err(Error::NotAPath { given: path.into(), meant: Some(meant.into()) })
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    let wrong = |kind| Error::NotAFile { path: path.into(), kind };
    let given = path.as_os_str().as_encoded_bytes();
    if given.is_empty() {
        return Err(wrong("an empty path"));
    }
    let name = path.file_name().ok_or_else(|| wrong("a directory"))?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    check_folder(folder)?;
    let reading = |error| Error::io(format!("reading {}", path.display()), error);
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(not_a_file(path, &metadata)),
        // `name/` and `name/.`, which `file_name` does not tell from `name`.
        _ if !given.ends_with(name.as_encoded_bytes()) => Err(wrong("the name of a directory")),
        Ok(metadata) if metadata.permissions().readonly() => Err(Error::ReadOnly { path: path.into() }),
        Ok(_writable) => fs::canonicalize(path).map_err(reading),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            // The file that SQLite is about to create is where the link points to. A chain of links ends: a
            // circle is another error than "not found".
            Ok(target) => canonical(&folder.join(target)),
            Err(_no_link) => Ok(fs::canonicalize(folder).map_err(reading)?.join(name)),
        },
        Err(error) => Err(reading(error)),
    }
}

/// Says what is wrong with the folder of a database, if anything is.
fn check_folder(folder: &Path) -> Result<(), Error> {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_file) => Err(Error::NotAFolder { folder: folder.into() }),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            // Some part of it is a file.
            let file = folder.ancestors().find(|part| fs::metadata(part).is_ok_and(|found| !found.is_dir()));
            Err(Error::NotAFolder { folder: file.unwrap_or(folder).into() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::MissingFolder { folder: folder.into() })
        }
        Err(error) => Err(Error::io(format!("looking at the folder {}", folder.display()), error)),
    }
}

pub(super) fn not_a_file(path: &Path, metadata: &Metadata) -> Error {
    Error::NotAFile { path: path.into(), kind: kind_of(metadata) }
}

#[cfg(unix)]
fn kind_of(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_dir() {
        "a directory"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn kind_of(_metadata: &Metadata) -> &'static str {
    "a device"
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
}
