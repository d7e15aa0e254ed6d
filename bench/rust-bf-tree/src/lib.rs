//! A C face for the crate bf-tree, for compare_engines: see bf_tree_shim.h.
//! A panic of the crate aborts, which the bench reports as a row without a
//! figure.

use bf_tree::{BfTree, Config, LeafInsertResult, LeafReadResult, ScanReturnField, StorageBackend};
use std::ffi::{c_char, c_void, CStr};
use std::slice;

const KEY_MAX: usize = 16;
const ROW_MAX: usize = 4096;

type Each = extern "C" fn(*mut c_void, *const u8, usize, *const u8, usize) -> bool;

#[no_mangle]
pub extern "C" fn bf_tree_shim_version() -> *const c_char {
    b"0.5.7\0".as_ptr().cast()
}

#[no_mangle]
pub extern "C" fn bf_tree_shim_has_uring() -> bool {
    // struct io_uring_params is 120 bytes; the kernel fills it in.
    let mut params = [0u64; 15];
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if ring < 0 {
        return false;
    }
    unsafe { libc::close(ring as i32) };
    true
}

/// # Safety
/// PATH is a string that ends with a zero.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_open(path: *const c_char, cache_bytes: usize) -> *mut c_void {
    let path = CStr::from_ptr(path).to_string_lossy().into_owned();
    let mut config = Config::new(&path, cache_bytes);
    if path != ":memory:" {
        config.storage_backend(if bf_tree_shim_has_uring() {
            StorageBackend::IoUringBlocking
        } else {
            StorageBackend::StdDirect
        });
    }
    match BfTree::with_config(config, None) {
        Ok(tree) => Box::into_raw(Box::new(tree)).cast(),
        Err(error) => {
            eprintln!("bf-tree: {error:?}");
            std::ptr::null_mut()
        }
    }
}

/// # Safety
/// TREE is from bf_tree_shim_open and is not used again.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_close(tree: *mut c_void) {
    drop(Box::from_raw(tree.cast::<BfTree>()));
}

/// # Safety
/// TREE is open; KEY and VALUE have the lengths given.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_insert(
    tree: *mut c_void,
    key: *const u8,
    key_len: usize,
    value: *const u8,
    value_len: usize,
) -> bool {
    let tree = &*tree.cast::<BfTree>();
    let key = slice::from_raw_parts(key, key_len);
    let value = slice::from_raw_parts(value, value_len);
    tree.insert(key, value) == LeafInsertResult::Success
}

/// # Safety
/// As bf_tree_shim_insert; VALUE has room for VALUE_MAX bytes.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_read(
    tree: *mut c_void,
    key: *const u8,
    key_len: usize,
    value: *mut u8,
    value_max: usize,
) -> i64 {
    let tree = &*tree.cast::<BfTree>();
    let key = slice::from_raw_parts(key, key_len);
    match tree.read(key, slice::from_raw_parts_mut(value, value_max)) {
        LeafReadResult::Found(len) => i64::from(len),
        _ => -1,
    }
}

/// # Safety
/// As bf_tree_shim_insert.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_delete(tree: *mut c_void, key: *const u8, key_len: usize) {
    (*tree.cast::<BfTree>()).delete(slice::from_raw_parts(key, key_len));
}

/// # Safety
/// As bf_tree_shim_insert; EACH may be called with CONTEXT.
#[no_mangle]
pub unsafe extern "C" fn bf_tree_shim_scan(
    tree: *mut c_void,
    from: *const u8,
    from_len: usize,
    rows: usize,
    each: Each,
    context: *mut c_void,
) {
    let tree = &*tree.cast::<BfTree>();
    let from = slice::from_raw_parts(from, from_len);
    let mut row = [0u8; KEY_MAX + ROW_MAX];
    let Ok(mut scan) = tree.scan_with_count(from, rows, ScanReturnField::KeyAndValue) else {
        return;
    };
    while let Some((key_len, value_len)) = scan.next(&mut row) {
        let (key, value) = row.split_at(key_len);
        if !each(context, key.as_ptr(), key_len, value.as_ptr(), value_len) {
            return;
        }
    }
}
