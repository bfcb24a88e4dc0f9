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
