//! What is logged of a call.

use std::io;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

#[tokio::test]
async fn a_call_is_logged_without_ids_bodies_or_tokens() {
    // A log statement that the thread of another test reaches first, while this one listens,
    // stays silent for the whole process.
    let name = "cm::tests::log::a_call_is_logged_without_ids_bodies_or_tokens";
    if !alone(name, &[]) {
        return;
    }
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "s3cret").unwrap();
    let auth = AuthSettings::Bearer { token_file: token_file.path().to_owned() };
    let server = Server::start(cm(CARD));
    let options = CmSettings { auth, ..options(format!("http://{}", server.address)) };
    let remote = new_client(options).unwrap();
    let log = Arc::new(Mutex::new(Vec::new()));
    let filter =
        tracing_subscriber::filter::Targets::new().with_target("cardbridge", tracing::Level::TRACE);
    let layer =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Tee(Arc::clone(&log)));
    let guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(filter).with(layer));
    remote.set_status(&decision()).await.unwrap();
    drop(guard);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    for part in ["DEBUG", "PUT", "/requests/{reqid}/smartcards/{scid}", "status=200", "elapsed_ms"]
    {
        assert!(log.contains(part), "{log}");
    }
    for part in [RECORD, REQUEST, CARD, "s3cret", "Retired", "Uuid"] {
        assert!(!log.contains(part), "{log}");
    }
}

/// Where a log goes that a test looks at.
struct Tee(Arc<Mutex<Vec<u8>>>);

impl<'a> MakeWriter<'a> for Tee {
    type Writer = TeeWriter;

    fn make_writer(&'a self) -> TeeWriter {
        TeeWriter(Arc::clone(&self.0))
    }
}

struct TeeWriter(Arc<Mutex<Vec<u8>>>);

impl io::Write for TeeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut log = self.0.lock().map_err(|_| io::Error::other("a test failed"))?;
        log.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
