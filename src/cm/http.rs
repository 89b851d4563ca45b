//! One HTTP exchange: within its deadline, and no more of the response than allowed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Request, Response, Url};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::classify::{BodyEnd, HttpResponse};
use super::cookies::CookieJar;
use super::headers::{content_coding, date, retry_after, sniff_coding, text};
use super::redact::Redactor;
use super::transport::HttpTransport;
use super::transport_error::Phase;
use crate::config::CmSettings;
use crate::domain::{CallError, Problem, RecordId, UnavailableReason};
use crate::wire::cm::RequestListReader;

/// The longest body of an error, or beginning of a list: enough for its message.
const ERROR_BODY_LIMIT: usize = 64 << 10;

/// How many bytes of a list are read in one turn of the loop.
const PIECE: usize = 16 << 10;

/// A list may take this many times `cm.timeout`, as long as it continues.
const LIST_TIMEOUTS: u32 = 12;

/// Calls one server: CM, or a token endpoint.
pub(super) struct HttpClient {
    transport: Arc<HttpTransport>,
    /// The session of this process, for a server that may have one.
    cookies: Option<CookieJar>,
    redactor: Arc<Redactor>,
    timeout: Duration,
    /// The date of the last good response, and when it came.
    dated: Mutex<Option<(Timestamp, std::time::Instant)>>,
}

/// How to read the body of a response.
pub(super) struct BodyLimits<'a> {
    /// The most bytes of a good response.
    pub(super) limit: usize,
    pub(super) deadline: Instant,
    /// Reads a good response while it comes in, so that it is not kept.
    pub(super) list: Option<&'a mut ListReading>,
}

/// The records whose requests count, once they are known; none if the sender is dropped before.
pub(super) type WantedRecords = watch::Receiver<Option<Vec<RecordId>>>;

/// A list of requests that is being read.
pub(super) struct ListReading {
    pub(super) reader: RequestListReader,
    pub(super) wanted: WantedRecords,
}

impl ListReading {
    pub(super) fn new(wanted: WantedRecords) -> Self {
        Self { reader: RequestListReader::default(), wanted }
    }

    /// Takes over the wanted records. A long list waits until they are known, and CM with it.
    async fn update_wanted(&mut self) {
        if self.reader.is_full() && self.wanted.wait_for(Option::is_some).await.is_err() {
            self.reader.want(&[]);
        }
        if let Some(records) = &*self.wanted.borrow() {
            self.reader.want(records);
        }
    }
}

impl HttpClient {
    /// `with_session`: whether to keep cookies.
    pub(super) fn new(
        server: &Url,
        settings: &CmSettings,
        redactor: &Arc<Redactor>,
        with_session: bool,
    ) -> Result<Self, Problem> {
        Ok(Self {
            transport: Arc::new(HttpTransport::new(server, settings, redactor)?),
            cookies: with_session.then(|| CookieJar::of(server, Arc::clone(redactor))),
            redactor: Arc::clone(redactor),
            timeout: settings.timeout,
            dated: Mutex::default(),
        })
    }

    pub(super) const fn transport(&self) -> &Arc<HttpTransport> {
        &self.transport
    }

    pub(super) const fn redactor(&self) -> &Arc<Redactor> {
        &self.redactor
    }

    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(super) fn forget_session(&self) {
        if let Some(cookies) = &self.cookies {
            cookies.clear();
        }
    }

    pub(super) fn last_date(&self) -> Option<(Timestamp, std::time::Instant)> {
        *self.dated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and reads the response within its limits.
    pub(super) async fn exchange(
        &self,
        mut request: Request,
        limits: BodyLimits<'_>,
    ) -> Result<HttpResponse, CallError> {
        let sent = self.cookies.as_ref().map(|cookies| cookies.put_into(&mut request));
        let response = self.transport.execute(request, limits.deadline).await?;
        let status = response.status().as_u16();
        let is_success = response.status().is_success();
        let limits = if is_success {
            limits
        } else {
            BodyLimits { limit: ERROR_BODY_LIMIT, list: None, ..limits }
        };
        let certificate = self.transport.certificate_of(&response);
        let headers = response.headers();
        if let (Some(cookies), Some(sent)) = (&self.cookies, &sent) {
            cookies.take_from(status, headers, sent);
        }
        let date = date(headers);
        if let Some(date) = date.filter(|_| is_success) {
            let mut dated = self.dated.lock().unwrap_or_else(PoisonError::into_inner);
            *dated = Some((date, std::time::Instant::now()));
        }
        let mut answer = HttpResponse {
            status,
            had_cookies: sent.is_some_and(|sent| !sent.is_empty()),
            retry_after: retry_after(headers, Timestamp::now()),
            location: text(headers, &LOCATION).map(|location| self.host_of(location)),
            is_html: text(headers, &CONTENT_TYPE).is_some_and(|kind| kind.contains("html")),
            coding: content_coding(headers),
            challenges: headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect(),
            certificate,
            date,
            redactor: Arc::clone(&self.redactor),
            ..HttpResponse::default()
        };
        (answer.body, answer.end) = self.read_body(response, limits).await;
        answer.coding = answer
            .coding
            .filter(|_| !answer.body.is_empty())
            .or_else(|| sniff_coding(&answer.body).map(str::to_owned));
        answer.client_cert = self.transport.client_cert_status();
        Ok(answer)
    }

    /// Chunk by chunk, so that nothing above the limit is kept; of a list, only its beginning is.
    async fn read_body(
        &self,
        mut response: Response,
        limits: BodyLimits<'_>,
    ) -> (Vec<u8>, BodyEnd) {
        let BodyLimits { limit, mut deadline, mut list } = limits;
        let (mut body, mut left) = (Vec::new(), limit);
        let announced = response.content_length().unwrap_or_default();
        if announced > limit as u64 {
            return (body, too_large(limit, list));
        }
        let last = deadline + self.timeout * LIST_TIMEOUTS;
        loop {
            if let Some(list) = &mut list {
                list.update_wanted().await;
                deadline = last.min(Instant::now() + self.timeout);
            }
            let chunk = match timeout_at(deadline, response.chunk()).await {
                Err(_) if deadline == last => {
                    let time = self.timeout * LIST_TIMEOUTS;
                    let detail = format!("the list of open requests takes longer than {time:?}");
                    let error = CallError::unavailable(UnavailableReason::Timeout, detail);
                    return (body, BodyEnd::Broken(error));
                }
                Err(_) => return (body, BodyEnd::Broken(self.transport.timeout_error())),
                Ok(Err(error)) => {
                    let error = self.transport.peer.http_error(&error, Phase::Body);
                    return (body, BodyEnd::Broken(error));
                }
                Ok(Ok(None)) => return (body, BodyEnd::Whole),
                Ok(Ok(Some(chunk))) if chunk.len() > left => return (body, too_large(limit, list)),
                Ok(Ok(Some(chunk))) => chunk,
            };
            left -= chunk.len();
            let Some(ListReading { reader, .. }) = list.as_deref_mut() else {
                body.extend_from_slice(&chunk);
                continue;
            };
            let room = ERROR_BODY_LIMIT.saturating_sub(body.len()).min(chunk.len());
            body.extend_from_slice(chunk.get(..room).unwrap_or_default());
            // The next chunk may always be there already: other tasks run in between.
            for piece in chunk.chunks(PIECE) {
                if !reader.push(piece) {
                    return (body, BodyEnd::Whole);
                }
                yield_now().await;
            }
        }
    }

    /// The host of a redirect; a relative one stays here.
    fn host_of(&self, location: &str) -> String {
        let target = self.transport.server.join(location).ok();
        let host = target.as_ref().and_then(Url::host_str);
        host.unwrap_or("an unreadable address").to_owned()
    }
}

/// A response above its limit: the reader of a list reports it itself, since it may well be CM's.
fn too_large(limit: usize, list: Option<&mut ListReading>) -> BodyEnd {
    match list {
        Some(reading) => {
            reading.reader.stop(limit);
            BodyEnd::Whole
        }
        None => BodyEnd::TooLarge(limit),
    }
}
