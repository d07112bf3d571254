//! How the system schedules the threads that serve connections.
#![allow(unsafe_code)]

/// Tells the system that this thread works in batches (`SCHED_BATCH`): it takes its share of a busy
/// core, but does not interrupt others each time that something comes for it. Under overload a
/// connection's thread would otherwise stop a pipeline's worker for every piece of a request that is
/// refused, and find little to do each time; and it never interrupts what else runs on the node.
///
/// Where the system does not let us, all works as before.
pub fn work_in_batches() {
    #[cfg(target_os = "linux")]
    {
        let parameters = libc::sched_param { sched_priority: 0 };
        // SAFETY: the kernel reads the structure, which outlives the call; 0 is this thread.
        let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) };
        if done != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "cannot change the scheduling policy of a thread");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn it_is_this_thread_that_changes() {
        // SAFETY: it only reads.
        let policy = || unsafe { libc::sched_getscheduler(0) };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                work_in_batches();
                policy()
            });
            assert_eq!(other.join().unwrap(), libc::SCHED_BATCH);
        });
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
