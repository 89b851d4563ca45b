//! The thread that HTTP has for itself, for the whole process: a server that sends without end takes no
//! turn of the daemon's loop.
//!
//! The HTTP client skips 1xx answers (RFC 9110 section 15.2) without a bound, and reads them in one go
//! for as long as more is there. The call's deadline ends that; until then only this thread is busy.

use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;

static HTTP_THREAD: OnceLock<Option<Handle>> = OnceLock::new();

/// Ends its task when it is dropped.
struct HttpTask<T>(JoinHandle<T>);

impl<T> Drop for HttpTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs a call there; it ends with whoever waits for it. Without a thread it runs here.
pub(super) async fn run<T: Send + 'static>(call: impl Future<Output = T> + Send + 'static) -> T {
    let Some(lane) = HTTP_THREAD.get_or_init(start) else { return call.await };
    let mut task = HttpTask(lane.spawn(call));
    match (&mut task.0).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody else ends it: this future is dropped as well.
            Err(_) => std::future::pending().await,
        },
    }
}

fn start() -> Option<Handle> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(2))
        .build();
    let started = runtime.and_then(|runtime| {
        let lane = runtime.handle().clone();
        let forever = move || runtime.block_on(std::future::pending::<()>());
        thread::Builder::new().name("http".to_owned()).spawn(forever)?;
        Ok(lane)
    });
    started.inspect_err(|error| tracing::warn!(%error, "HTTP has no thread of its own")).ok()
}
