//! What the kernel says about this process. Linux only; elsewhere the figures are left out.

use std::path::Path;
use std::time::Duration;

/// Kernel ticks a second as user space sees them: fixed at 100 on every Linux that is not ancient.
const TICKS_A_SECOND: u64 = 100;

/// Processor time of all threads so far.
pub(crate) fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name, which may hold anything, spaces and brackets included.
    let fields = stat.rsplit_once(')')?.1;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_A_SECOND))
}

/// Resident memory now, in megabytes.
pub(crate) fn memory_mb() -> Option<f64> {
    status_mb("VmRSS:")
}

/// The most memory that ever was resident, in megabytes.
pub(crate) fn peak_memory_mb() -> Option<f64> {
    status_mb("VmHWM:")
}

fn status_mb(field: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// The database with its log, in megabytes.
pub(crate) fn database_mb(file: &Path) -> Option<f64> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    let main = std::fs::metadata(file).ok()?.len();
    let log = std::fs::metadata(log).map_or(0, |log| log.len());
    Some((main + log) as f64 / (1 << 20) as f64)
}
