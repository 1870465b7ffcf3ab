//! The calls SQLite makes of a VFS, and of a file that a VFS opened.
//!
//! Each of them unpacks pointers, asks the disk, and packs the answer. SAFETY, once for all of them: SQLite
//! calls with what the interface promises (sqlite3.h, "sqlite3_vfs", "sqlite3_io_methods"): a file is the
//! memory it gave to `open`, buffers are as long as it says, names are C strings, out-pointers can be written
//! and are not kept here. A file is used by one thread at a time, because SQLite's connections are.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use rusqlite::ffi;

use super::locks::REGION_BYTES;
use super::{Shared, State};

static MOUNTED: LazyLock<Mutex<HashMap<PathBuf, Arc<Shared>>>> = LazyLock::new(|| {
    register();
    Mutex::default()
});

fn mounted() -> MutexGuard<'static, HashMap<PathBuf, Arc<Shared>>> {
    MOUNTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(super) fn mount(folder: PathBuf, disk: Arc<Shared>) {
    mounted().insert(folder, disk);
}

pub(super) fn unmount(database: &Path) {
    if let Some(folder) = database.parent() {
        mounted().remove(folder);
    }
}

/// The operating system's VFS, for every path that is on no disk of ours.
struct Base(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's own VFS is made for use from any thread, and is never freed.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    // SAFETY: initialises SQLite and looks up its default VFS; null asks for the default.
    Base(unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) })
});

/// Registers this VFS as the default: the engine under test opens its files with no other words than ever.
fn register() {
    assert!(!BASE.0.is_null(), "SQLite has a VFS");
    // SAFETY: not null, and SQLite never frees it. The copy shares its functions for everything that is not
    // replaced here; they get the original as their first argument wherever they look at it (see `base`).
    let original = unsafe { *BASE.0 };
    let vfs = ffi::sqlite3_vfs {
        szOsFile: original.szOsFile.max(size_of::<SimulatedFile>() as c_int),
        pNext: std::ptr::null_mut(),
        zName: c"forebay-disk".as_ptr(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // SQLite's own extension of the interface; nothing here replaces system calls.
        iVersion: 2,
        ..original
    };
    // SAFETY: leaked, so it lives as long as SQLite may call it.
    let status = unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 1) };
    assert_eq!(status, ffi::SQLITE_OK, "the VFS registers");
}

/// Memory that SQLite gives us for each open file; the first field is SQLite's.
#[repr(C)]
struct SimulatedFile {
    methods: *const ffi::sqlite3_io_methods,
    handle: *mut Handle,
}

struct Handle {
    disk: Arc<Shared>,
    file: usize,
    holder: u64,
    /// A new journal or log: its first sync is the folder's, too.
    sync_folder: bool,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn code(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(ffi::SQLITE_OK)
}

/// The disk a path is on, and the name there.
unsafe fn locate(path: *const c_char) -> Option<(Arc<Shared>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, so a C string (see the module).
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let disk = Arc::clone(mounted().get(path.parent()?)?);
    Some((disk, path.file_name()?.to_str()?.to_owned()))
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: see the module.
    let Some((disk, name)) = (unsafe { locate(path) }) else {
        // SAFETY: the original VFS gets itself, the arguments as they came, and room enough (`szOsFile`).
        return unsafe {
            (*BASE.0).xOpen.map_or(ffi::SQLITE_CANTOPEN, |open| open(BASE.0, path, file, flags, out_flags))
        };
    };
    let file = file.cast::<SimulatedFile>();
    // SAFETY: ours to fill. Without methods SQLite does not close what was not opened.
    unsafe { file.write(SimulatedFile { methods: std::ptr::null(), handle: std::ptr::null_mut() }) };
    let mut state = disk.state();
    let opened = match state.open(&name, flags & ffi::SQLITE_OPEN_CREATE != 0) {
        Ok(opened) => opened,
        Err(code) => return code,
    };
    state.next_holder += 1;
    let holder = state.next_holder;
    drop(state);
    let journals = ffi::SQLITE_OPEN_WAL | ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL;
    let sync_folder = flags & ffi::SQLITE_OPEN_CREATE != 0 && flags & journals != 0;
    let handle = Box::into_raw(Box::new(Handle { disk, file: opened, holder, sync_folder }));
    // SAFETY: as above; the handle is freed by `close`.
    unsafe {
        file.write(SimulatedFile { methods: &raw const METHODS, handle });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, path: *const c_char, sync_folder: c_int) -> c_int {
    // SAFETY: see the module.
    match unsafe { locate(path) } {
        Some((disk, name)) => code(disk.state().delete(&name, sync_folder != 0)),
        // SAFETY: as in `open`.
        None => unsafe {
            (*BASE.0).xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| delete(BASE.0, path, sync_folder))
        },
    }
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: see the module.
    let Some((disk, name)) = (unsafe { locate(path) }) else {
        // SAFETY: as in `open`.
        return unsafe {
            (*BASE.0).xAccess.map_or(ffi::SQLITE_IOERR_ACCESS, |access| access(BASE.0, path, flags, out))
        };
    };
    let state = disk.state();
    if state.is_off {
        return ffi::SQLITE_IOERR_ACCESS;
    }
    let file = state.names.get(&name).map(|file| state.files[*file].stored.len());
    // An empty file counts as missing, as in SQLite's unix VFS.
    let there = match flags {
        ffi::SQLITE_ACCESS_EXISTS => file.is_some_and(|length| length > 0),
        _ => file.is_some(),
    };
    // SAFETY: see the module.
    unsafe { *out = c_int::from(there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: as in `open`.
    unsafe { (*BASE.0).xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| full(BASE.0, path, room, out)) }
}

/// The handle behind an open file.
unsafe fn handle<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Handle {
    // SAFETY: a file whose methods are ours was opened by `open` and not closed yet, and it is used by one
    // thread at a time (see the module), so this is the only reference.
    unsafe { &mut *(*file.cast::<SimulatedFile>()).handle }
}

fn with<T>(handle: &Handle, work: impl FnOnce(&mut State) -> T) -> T {
    work(&mut handle.disk.state())
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: made by `Box::into_raw` in `open`; SQLite closes a file once and does not use it after.
    let handle = unsafe { Box::from_raw((*file.cast::<SimulatedFile>()).handle) };
    with(&handle, |state| {
        let locks = &mut state.files[handle.file].locks;
        locks.unlock(handle.holder, ffi::SQLITE_LOCK_NONE);
        locks.unmap(handle.holder);
    });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see the module.
    let (handle, into) =
        unsafe { (handle(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), length as usize)) };
    code(with(handle, |state| state.read(handle.file, at as usize, into)))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see the module.
    let (handle, bytes) =
        unsafe { (handle(file), std::slice::from_raw_parts(bytes.cast::<u8>(), length as usize)) };
    code(with(handle, |state| state.write(handle.file, at as usize, bytes)))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    code(with(handle, |state| state.truncate(handle.file, length as usize)))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    handle.disk.hold_sync(handle.file);
    let synced = with(handle, |state| state.sync(handle.file, handle.sync_folder));
    handle.sync_folder &= synced.is_err();
    code(synced)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: see the module.
    unsafe {
        let handle = handle(file);
        *out = with(handle, |state| state.files[handle.file].stored.len()) as ffi::sqlite3_int64;
    }
    ffi::SQLITE_OK
}

fn busy(result: Result<(), super::locks::Busy>) -> c_int {
    code(result.map_err(|_busy| ffi::SQLITE_BUSY))
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    busy(with(handle, |state| state.files[handle.file].locks.lock(handle.holder, level)))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    with(handle, |state| state.files[handle.file].locks.unlock(handle.holder, level));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: see the module.
    unsafe {
        let handle = handle(file);
        *out = c_int::from(with(handle, |state| state.files[handle.file].locks.is_reserved()));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(
    _file: *mut ffi::sqlite3_file,
    _op: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

/// What SQLite's unix VFS says of an ordinary file.
unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// What SQLite's unix VFS says of an ordinary file: docs/design.md, "Assumptions".
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE | ffi::SQLITE_IOCAP_SUBPAGE_READ
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    assert_eq!(bytes as usize, REGION_BYTES, "SQLite maps regions of one size");
    // SAFETY: see the module. The region stays where it is until every connection has unmapped.
    unsafe {
        let handle = handle(file);
        let locks = |state: &mut State| {
            state.files[handle.file].locks.map(handle.holder, region as usize, extend != 0)
        };
        *out = with(handle, locks).cast();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    let range = first as usize..(first + count) as usize;
    with(handle, |state| {
        let locks = &mut state.files[handle.file].locks;
        if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
            locks.unlock_shared_memory(handle.holder, range);
            return ffi::SQLITE_OK;
        }
        let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
        busy(locks.lock_shared_memory(handle.holder, range, exclusive))
    })
}

/// Taking and leaving a lock that everyone takes is a barrier, as in SQLite's unix VFS.
unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    with(handle, |_state| ());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: see the module.
    let handle = unsafe { handle(file) };
    with(handle, |state| state.files[handle.file].locks.unmap(handle.holder));
    ffi::SQLITE_OK
}
