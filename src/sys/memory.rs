//! The allocator.

/// Keeps all allocations in one arena. To be called before the first thread is started.
///
/// The GNU allocator gives each thread an arena of its own, and when memory of such an arena is
/// freed it reads `/proc/sys/vm/overcommit_memory`: memory that [`netns::run_in`](super::netns)
/// allocated would make the sandboxed process open a file. One arena also keeps it smaller.
pub fn single_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes integers only, and there is one thread.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
