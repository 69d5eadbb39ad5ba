//! An allocator that tells how much memory some threads held at once.

#![allow(unreachable_pub, reason = "a module of several crates")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};

struct Counting;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// What all counted threads hold, and the most they held.
static HELD: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: isize) {
    if COUNTED.get() {
        let held = HELD.fetch_add(bytes, SeqCst) + bytes;
        MOST.fetch_max(held, SeqCst);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether from here on what this thread holds is counted. A thread that works for others between two
/// measurements, as those of tests do, must not stay counted.
pub fn count_this_thread(counted: bool) {
    COUNTED.set(counted);
}

/// The most bytes that the counted threads held at once while `run` ran, beyond
/// those held before. Not to be called twice at the same time.
pub fn most_held(run: impl FnOnce()) -> isize {
    let before = HELD.load(SeqCst);
    MOST.store(before, SeqCst);
    run();
    MOST.load(SeqCst) - before
}
