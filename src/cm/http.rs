//! Sends one call and reads its answer: within the deadline, and no more of it than allowed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::tls::TlsInfo;
use reqwest::{Method, Request, Response, Url};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::api_call::ApiCall;
use super::auth::{AuthDecision, AuthResponse, Authenticator, RequestAuth};
use super::classify::{BodyEnd, HeadRefusal, HttpResponse, classify, unparsable_body};
use super::cookies::CookieJar;
use super::http_transport::HttpTransport;
use super::redact::Redactor;
use super::retry_after::{date, retry_after};
use super::setup::{self, SetupError, TransportBuilder};
use super::transport_error::{HttpPeer, Phase};
use super::{
    CallError, CmOptions, CredentialsView, UnavailableReason, away, content_encoding, http_thread,
};
use crate::domain::RecordId;
use crate::wire::cm::{RequestListReader, RequestSummary};

/// The most that is read of an answer that is not a good one: enough for its words.
const ERROR_BODY_LIMIT: usize = 64 << 10;

/// CM, and what every call needs.
pub(super) struct CmHttp {
    caller: HttpClient,
    authenticator: Authenticator,
}

/// Calls one server: CM, or whoever issues tokens for it.
pub(super) struct HttpClient {
    outbound: Arc<HttpTransport>,
    base: Url,
    peer: HttpPeer,
    /// What the server has put into this process's session, where it may have one.
    cookies: Option<CookieJar>,
    redactor: Arc<Redactor>,
    timeout: Duration,
    /// The date in the last good answer, and when that came.
    dated: Mutex<Option<(Timestamp, std::time::Instant)>>,
}

/// The requests of a list, or what is wrong with what came instead.
pub(super) type RequestedList = Result<Vec<RequestSummary>, CallError>;

/// What may come back, and where it goes.
pub(super) struct BodyReader<'a> {
    /// The most bytes of a good answer.
    limit: usize,
    deadline: Instant,
    /// Reads a good answer while it comes in, instead of its being held.
    list: Option<&'a mut BodyReading>,
}

/// Which records are meant, once that is known; never, where nobody tells any more.
pub(super) type ResponseKind = watch::Receiver<Option<Vec<RecordId>>>;

/// A list of requests that is being read.
pub(super) struct BodyReading {
    reader: RequestListReader,
    wanted: ResponseKind,
}

impl BodyReading {
    /// Takes over which records are meant. A list that is long waits until that is known, and CM
    /// with it.
    async fn heed(&mut self) {
        if self.reader.is_full() {
            // Nobody tells any more where the records could not be had: nothing is meant.
            let told = self.wanted.wait_for(Option::is_some).await.is_ok();
            if !told {
                self.reader.want(&[]);
            }
        }
        if let Some(records) = &*self.wanted.borrow() {
            self.reader.want(records);
        }
    }
}

/// How many bytes of a list are read in one turn of the loop.
const PIECE: usize = 16 << 10;

/// How much longer than another answer a list may take, as long as it goes on.
const LIST_TIMES: u32 = 12;

impl CmHttp {
    pub(super) fn new(options: &CmOptions) -> Result<Self, SetupError> {
        let base = setup::base_url(options)?;
        let redactor = Arc::<Redactor>::default();
        let clients = TransportBuilder::new(options, &base, redactor);
        let cookies = Some(CookieJar::of(&base, Arc::clone(clients.redactor())));
        let caller = HttpClient { cookies, ..HttpClient::new(&base, options, &clients)? };
        let credentials = Authenticator::new(options, &clients, caller.outbound())?;
        Ok(Self { caller, authenticator: credentials })
    }

    /// Knows the secrets of these calls.
    pub(super) const fn redactor(&self) -> &Arc<Redactor> {
        &self.caller.redactor
    }

    /// The URL under which the routes are.
    pub(super) const fn base(&self) -> &Url {
        &self.caller.base
    }

    /// Asks for nothing, as nobody, and tells what time it is there; `None` where it does not say.
    pub(super) async fn fetch_server_time(&self) -> Result<Option<Timestamp>, CallError> {
        let request = Request::new(Method::HEAD, self.caller.base.clone());
        let response = self.caller.respond(request, Instant::now() + self.caller.timeout).await?;
        Ok(date(response.headers()))
    }

    /// Takes in what is secret already, before anything is sent.
    pub(super) fn learn(&self) {
        self.authenticator.learn_secrets(&self.caller.redactor);
    }

    /// The date in the last good answer, and when that came.
    pub(super) fn last_date(&self) -> Option<(Timestamp, std::time::Instant)> {
        *self.caller.dated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets what a call would show, and shows it to nobody.
    pub(super) async fn prepare(&self) -> Result<(), CallError> {
        self.authenticator.authorize(Instant::now() + self.caller.timeout).await.map(drop)
    }

    /// The next call asks for the credentials it needs, whatever an issuer said of waiting.
    pub(super) fn expedite(&self) {
        self.authenticator.expedite();
    }

    /// How it stands with the credentials.
    pub(super) fn authenticator(&self) -> CredentialsView {
        self.authenticator.view()
    }

    /// The body of a good answer; anything else is an error, sorted.
    pub(super) async fn call(&self, call: &ApiCall<'_>) -> Result<Vec<u8>, CallError> {
        self.call_with_retry(call, None).await
    }

    /// A list of requests, read while it comes in. The error within is about what the list says,
    /// and matters only to somebody who needs the list.
    pub(super) async fn list(
        &self,
        call: &ApiCall<'_>,
        wanted: ResponseKind,
    ) -> Result<RequestedList, CallError> {
        let mut reading = BodyReading { reader: RequestListReader::default(), wanted };
        let opening = self.call_with_retry(call, Some(&mut reading)).await?;
        Ok(reading.reader.finish().map_err(|error| unparsable_body(&error, &opening)))
    }

    /// How many requests of a list name a card.
    pub(super) async fn count(&self, call: &ApiCall<'_>) -> Result<usize, CallError> {
        let (_told, wanted) = watch::channel(Some(Vec::new()));
        let mut reading = BodyReading { reader: RequestListReader::default(), wanted };
        let opening = self.call_with_retry(call, Some(&mut reading)).await?;
        let named = reading.reader.named();
        reading.reader.finish().map_err(|error| unparsable_body(&error, &opening))?;
        Ok(named)
    }

    async fn call_with_retry(
        &self,
        call: &ApiCall<'_>,
        mut list: Option<&mut BodyReading>,
    ) -> Result<Vec<u8>, CallError> {
        let started = Instant::now();
        let deadline = started + self.caller.timeout;
        let mut answer = self.ask(call, list.as_deref_mut(), deadline).await;
        if self.begins_without_session(call, &answer) {
            answer = self.ask(call, list.as_deref_mut(), deadline).await;
        }
        let answer = match answer {
            Ok((_, AuthDecision::Retry)) => match self.ask(call, list, deadline).await {
                Ok((answer, AuthDecision::Accept | AuthDecision::Retry)) => Ok(answer),
                Ok((_, AuthDecision::Reject(error))) | Err(error) => Err(error),
            },
            Ok((answer, AuthDecision::Accept)) => Ok(answer),
            Ok((_, AuthDecision::Reject(error))) | Err(error) => Err(error),
        };
        let elapsed_ms = started.elapsed().as_millis();
        let (method, route) = (call.method(), call.route());
        match answer {
            Ok(answer) => {
                tracing::debug!(%method, route, status = answer.status, elapsed_ms, "CM responded");
                classify(answer).map_err(|error| self.caller.redactor.redact_in(error))
            }
            Err(error) => {
                let error = self.caller.redactor.redact_in(error);
                tracing::debug!(%method, route, elapsed_ms, %error, "CM call failed");
                Err(error)
            }
        }
    }

    /// Whether a call is made once more without cookies: with them its head is too long, and the server
    /// did not hand it on. Where that is only suspected, a change is not repeated here.
    fn begins_without_session(
        &self,
        call: &ApiCall<'_>,
        answer: &Result<(HttpResponse, AuthDecision), CallError>,
    ) -> bool {
        let Ok((answer, _)) = answer else { return false };
        let refusal = answer.head_refusal();
        if !answer.had_cookies || refusal == HeadRefusal::None {
            return false;
        }
        tracing::warn!(
            status = answer.status,
            "Session cookies dropped: the server takes no call with them"
        );
        self.caller.forget_session();
        refusal == HeadRefusal::Named || call.method() == Method::GET
    }

    /// One question, with a pass, and one answer.
    async fn ask(
        &self,
        call: &ApiCall<'_>,
        list: Option<&mut BodyReading>,
        deadline: Instant,
    ) -> Result<(HttpResponse, AuthDecision), CallError> {
        let pass = self.authenticator.authorize(deadline).await?;
        let request = self.request(call, &pass);
        let asked = BodyReader { limit: call.limit(), deadline, list };
        let (answer, welcome) = self.caller.exchange(request, asked).await?;
        Ok((answer, self.authenticator.on_response(pass, welcome, deadline).await))
    }

    fn request(&self, call: &ApiCall<'_>, pass: &RequestAuth) -> Request {
        let mut request = Request::new(call.method(), call.url(&self.caller.base));
        if let Some(header) = &pass.header {
            self.caller.redactor.learn_headers(header);
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        if let Some(body) = call.body() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Some(body.into());
        }
        request
    }
}

impl HttpClient {
    /// For a server that keeps no session.
    pub(super) fn new(
        base: &Url,
        options: &CmOptions,
        clients: &TransportBuilder<'_>,
    ) -> Result<Self, SetupError> {
        let outbound = Arc::new(clients.client(base)?);
        Ok(Self {
            peer: outbound.peer(base, options.connect_timeout),
            outbound,
            base: base.clone(),
            cookies: None,
            redactor: Arc::clone(clients.redactor()),
            timeout: options.timeout,
            dated: Mutex::default(),
        })
    }

    /// What the calls go through.
    pub(super) const fn outbound(&self) -> &Arc<HttpTransport> {
        &self.outbound
    }

    /// Begins without a session.
    fn forget_session(&self) {
        if let Some(cookies) = &self.cookies {
            cookies.clear();
        }
    }

    /// The server's host and port, for messages.
    pub(super) fn name(&self) -> &str {
        self.peer.name()
    }

    /// Sends a request, and reads its answer as far as that is asked for.
    pub(super) async fn exchange(
        &self,
        mut request: Request,
        asked: BodyReader<'_>,
    ) -> Result<(HttpResponse, AuthResponse), CallError> {
        let sent = self.cookies.as_ref().map(|cookies| cookies.put_into(&mut request));
        let response = self.respond(request, asked.deadline).await?;
        let status = response.status().as_u16();
        let asked = if response.status().is_success() {
            asked
        } else {
            BodyReader { limit: ERROR_BODY_LIMIT, list: None, ..asked }
        };
        let certificate =
            response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate);
        // Through a proxy the client does not tell.
        let certificate = certificate.map(<[u8]>::to_vec).or_else(|| self.outbound.certificate());
        let headers = response.headers();
        if let (Some(cookies), Some(sent)) = (&self.cookies, &sent) {
            cookies.take_from(status, headers, sent);
        }
        if let Some(date) = date(headers).filter(|_| response.status().is_success()) {
            let mut dated = self.dated.lock().unwrap_or_else(PoisonError::into_inner);
            *dated = Some((date, std::time::Instant::now()));
        }
        let welcome = AuthResponse::new(status, headers, certificate);
        let retry_after = retry_after(headers, Timestamp::now());
        let html = text(headers, &CONTENT_TYPE).is_some_and(|kind| kind.contains("html"));
        let location = text(headers, &LOCATION).map(|to| self.host_of(to));
        let announced = content_encoding::announced(headers);
        let (body, end) = self.body(response, asked).await;
        let coding = announced.filter(|_| !body.is_empty());
        let coding = coding.or_else(|| content_encoding::found(&body).map(str::to_owned));
        let shown = self.outbound.shown();
        let answer = HttpResponse {
            status,
            had_cookies: sent.is_some_and(|sent| !sent.is_empty()),
            retry_after,
            location,
            is_html: html,
            coding,
            client_cert: shown,
            body,
            end,
            redactor: Arc::clone(&self.redactor),
        };
        Ok((answer, welcome))
    }

    /// Sends a request, and reads the head of its answer.
    async fn respond(&self, request: Request, deadline: Instant) -> Result<Response, CallError> {
        let client = self.outbound.client()?;
        match timeout_at(deadline, http_thread::run(client.execute(request))).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let error = self.peer.error(&error, Phase::Head);
                Err(self.outbound.with_proxy_detail(error, &self.base, deadline).await)
            }
            Err(_) => Err(self.timeout_error()),
        }
    }

    /// Chunk by chunk, so that what is over the limit is never held; of a list, only its opening is.
    async fn body(&self, mut response: Response, asked: BodyReader<'_>) -> (Vec<u8>, BodyEnd) {
        let BodyReader { limit, deadline, mut list } = asked;
        let (mut body, mut left) = (Vec::new(), limit);
        let announced = response.content_length().unwrap_or_default();
        if announced > limit as u64 {
            return (body, too_large(limit, list));
        }
        let last = deadline + self.timeout * LIST_TIMES;
        let mut deadline = deadline;
        loop {
            if let Some(list) = &mut list {
                list.heed().await;
                deadline = last.min(Instant::now() + self.timeout);
            }
            let chunk = match timeout_at(deadline, response.chunk()).await {
                Err(_) if deadline == last => return (body, BodyEnd::Broken(self.too_long())),
                Err(_) => return (body, BodyEnd::Broken(self.timeout_error())),
                Ok(Err(error)) => {
                    return (body, BodyEnd::Broken(self.peer.error(&error, Phase::Body)));
                }
                Ok(Ok(None)) => return (body, BodyEnd::Whole),
                Ok(Ok(Some(chunk))) if chunk.len() > left => return (body, too_large(limit, list)),
                Ok(Ok(Some(chunk))) => chunk,
            };
            left -= chunk.len();
            let Some(BodyReading { reader, .. }) = list.as_deref_mut() else {
                body.extend_from_slice(&chunk);
                continue;
            };
            let room = ERROR_BODY_LIMIT.saturating_sub(body.len()).min(chunk.len());
            body.extend_from_slice(chunk.get(..room).unwrap_or_default());
            // The next chunk may be there already, each time: others have their turn between.
            for piece in chunk.chunks(PIECE) {
                if !reader.push(piece) {
                    return (body, BodyEnd::Whole);
                }
                yield_now().await;
            }
        }
    }

    fn too_long(&self) -> CallError {
        let time = self.timeout * LIST_TIMES;
        away(
            UnavailableReason::Timeout,
            format!("the list of open requests takes longer than {time:?}"),
        )
    }

    fn timeout_error(&self) -> CallError {
        away(UnavailableReason::Timeout, format!("no whole answer within {:?}", self.timeout))
    }

    /// The host that a redirect leads to; a relative one stays here.
    fn host_of(&self, location: &str) -> String {
        let target = self.base.join(location).ok();
        let host = target.as_ref().and_then(Url::host_str);
        host.unwrap_or("an unreadable address").to_owned()
    }
}

impl BodyReader<'_> {
    /// An answer that is held, up to this many bytes.
    pub(super) const fn object(limit: usize, deadline: Instant) -> Self {
        Self { limit, deadline, list: None }
    }
}

/// An answer that is over its limit: a list says so itself, for it may well be CM's.
fn too_large(limit: usize, list: Option<&mut BodyReading>) -> BodyEnd {
    match list {
        Some(reading) => {
            reading.reader.stop(limit);
            BodyEnd::Whole
        }
        None => BodyEnd::TooLarge(limit),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
