//! Counts the instructions that a process executes in user space, as a plugin of QEMU's user-mode emulation.
//!
//! ```text
//! qemu-x86_64 -plugin libredeliver_counter.so,into=COUNT envoy ...
//!     each block of code, when it is translated: "add its length to the number in COUNT whenever you run it"
//! ```
//! Where two threads end a block in the same instant, the length of one of them is lost: a few in a million. The
//! kernel's work is not in it, and an instruction that waits for memory counts like any other: it compares what two programs do,
//! not how long they take.
//!
//! The interface is that of QEMU 7.2 to 8.2 (docs/devel/tcg-plugins, include/qemu/qemu-plugin.h, version 1 of it).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use memmap2::{MmapMut, MmapOptions};

/// The version of the interface, which QEMU reads before anything else.
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals)]
pub static qemu_plugin_version: c_int = 1;

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD: c_int = 0;

/// A block of code that is being translated.
#[repr(C)]
pub struct Block {
    _of_qemu: [u8; 0],
}

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, translated: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_vcpu_tb_exec_inline(block: *mut Block, operation: c_int, number: *mut c_void, by: u64);
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
}

static COUNT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

/// Called once, with the arguments `name=value` of the plugin. Anything but 0 ends QEMU.
///
/// # Safety
/// Only QEMU calls it, with `count` C strings in `arguments`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: that many strings, as QEMU promises, and none of them changes.
    let mut arguments = (0..count).map(|place| unsafe { CStr::from_ptr(*arguments.add(place)) }.to_string_lossy());
    let Some(file) = arguments.find_map(|argument| argument.strip_prefix("into=").map(str::to_owned)) else {
        eprintln!("redeliver-counter: say where to count: -plugin PLUGIN,into=FILE");
        return 1;
    };
    match number_in(Path::new(&file)) {
        Ok(number) => COUNT.store(number.as_mut_ptr().cast(), Ordering::Release),
        Err(error) => {
            eprintln!("redeliver-counter: {file}: {error}");
            return 1;
        }
    }
    // SAFETY: the function lives as long as the process.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

/// Eight bytes of a file, for ever.
fn number_in(file: &Path) -> std::io::Result<&'static mut MmapMut> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(file)?;
    file.set_len(8)?;
    // SAFETY: it was made just now, in a folder that the benchmark made for this process, and nobody else writes to it.
    let number = unsafe { MmapOptions::new().len(8).map_mut(&file) }?;
    Ok(Box::leak(Box::new(number)))
}

extern "C" fn translated(_: u64, block: *mut Block) {
    // SAFETY: QEMU's block is there while it calls; the number is for ever.
    unsafe {
        let length = qemu_plugin_tb_n_insns(block);
        qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, COUNT.load(Ordering::Acquire), length as u64);
    }
}
