//! Keeps the async workers free: nothing that takes long runs on one of them.

/// Does something that takes a processor or a disk for a while, on a thread that nothing else waits for.
pub(crate) async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime goes away, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}
