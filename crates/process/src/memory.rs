//! What this process holds of memory.

/// Gives memory back that was freed. The C library keeps it for later in pools of its own, one for each few threads, and
/// would never give back what lies below something that is still used.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time from any thread; it takes the locks of the pools itself.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets threads share pools of memory, one for each core instead of eight: what one thread has freed another can use, and
/// less is held. For the start of a program.
pub fn share_pools() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let pools = libc::c_int::try_from(cores).unwrap_or(libc::c_int::MAX);
        // SAFETY: mallopt(3) takes two numbers, and locks what it changes.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, pools);
        }
    }
}
