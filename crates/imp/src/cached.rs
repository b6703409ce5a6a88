//! [`Cached`]: what is worked out once for all who ask at about the same time.

use std::time::Duration;

use tokio::time::Instant;

/// A value that is good for a while. Who asks while it is worked out waits for it and works out nothing.
pub(crate) struct Cached<T> {
    good_for: Duration,
    latest: tokio::sync::Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Cached<T> {
    pub(crate) fn new(good_for: Duration) -> Self {
        Self { good_for, latest: tokio::sync::Mutex::default() }
    }

    /// The value, worked out anew when it is too old. A failure is nobody's but the asker's.
    pub(crate) async fn get<E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut latest = self.latest.lock().await;
        if let Some((at, value)) = &*latest
            && at.elapsed() < self.good_for
        {
            return Ok(value.clone());
        }
        let value = work.await?;
        *latest = Some((Instant::now(), value.clone()));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_worked_out_again_once_it_is_too_old() {
        let cached = Cached::new(Duration::from_secs(5));
        let get = async |value| cached.get(async move { value }).await;
        assert_eq!(get(Err("not yet")).await, Err("not yet"));
        assert_eq!(get(Ok(1)).await, Ok(1));
        assert_eq!(get(Ok(2)).await, Ok(1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(get(Ok(3)).await, Ok(3));
    }
}
