//! The calls, as values: what is sent, and how much may come back.

use reqwest::{Method, Url};

use crate::domain::{CardId, Decision, RecordId, RequestId};
use crate::wire::cm;

/// The most that is read of an answer that holds a record or a few: a record has about 700 bytes.
const OBJECT_LIMIT: usize = 1 << 20;

/// The most that is read of a list of requests, which is not held: it ends what never ends. 200,000
/// requests with space between their properties are about 300 MB.
const LIST_LIMIT: usize = 1 << 30;

/// The name of the status of a request that is done.
pub(super) const COMPLETED: &str = "Completed";

/// One call to CM.
#[derive(Debug, Clone, Copy)]
pub(super) enum ApiCall<'a> {
    /// `GET /smartcards?cardid={guid}`
    RecordsOfCard(CardId),
    /// `GET /smartcards/{uuid}`
    Record(RecordId),
    /// `GET /requests?status={name}`
    OpenRequests(&'static str),
    /// `PUT /requests/{reqid}/smartcards/{scid}`
    SetStatus(&'a Decision),
    /// `GET /requests/{id}`
    Request(RequestId),
    /// `PUT /requests/{id}`
    CompleteRequest(RequestId),
}

impl ApiCall<'_> {
    /// The name of the route, without ids.
    pub(super) const fn route(&self) -> &'static str {
        match self {
            Self::RecordsOfCard(_) => "/smartcards?cardid",
            Self::Record(_) => "/smartcards/{uuid}",
            Self::OpenRequests(_) => "/requests?status",
            Self::SetStatus(_) => "/requests/{reqid}/smartcards/{scid}",
            Self::Request(_) | Self::CompleteRequest(_) => "/requests/{id}",
        }
    }

    pub(super) const fn method(&self) -> Method {
        match self {
            Self::RecordsOfCard(_) | Self::Record(_) | Self::OpenRequests(_) | Self::Request(_) => {
                Method::GET
            }
            Self::SetStatus(_) | Self::CompleteRequest(_) => Method::PUT,
        }
    }

    /// How long a good answer may be, in bytes.
    pub(super) const fn limit(&self) -> usize {
        match self {
            Self::RecordsOfCard(_)
            | Self::Record(_)
            | Self::SetStatus(_)
            | Self::Request(_)
            | Self::CompleteRequest(_) => OBJECT_LIMIT,
            Self::OpenRequests(_) => LIST_LIMIT,
        }
    }

    /// The JSON that is sent, where some is.
    pub(super) fn body(&self) -> Option<String> {
        match self {
            Self::RecordsOfCard(_) | Self::Record(_) | Self::OpenRequests(_) | Self::Request(_) => {
                None
            }
            Self::SetStatus(decision) => Some(cm::status_update(&decision.new_status_name)),
            Self::CompleteRequest(_) => Some(cm::status_update(COMPLETED)),
        }
    }

    /// The whole URL, given the one under which the routes are.
    pub(super) fn url(&self, base: &Url) -> Url {
        match self {
            Self::RecordsOfCard(card) => {
                with_query(base, "smartcards", ("cardid", &card.to_string()))
            }
            Self::Record(record) => with_path(base, &["smartcards", &record.to_string()]),
            Self::OpenRequests(status) => with_query(base, "requests", ("status", status)),
            Self::Request(request) | Self::CompleteRequest(request) => {
                with_path(base, &["requests", &request.to_string()])
            }
            Self::SetStatus(Decision { request, record, .. }) => with_path(
                base,
                &["requests", &request.to_string(), "smartcards", &record.to_string()],
            ),
        }
    }
}

fn with_path(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only URLs like `mailto:` have no segments; `setup` let none of them through.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

fn with_query(base: &Url, segment: &str, (name, value): (&str, &str)) -> Url {
    let mut url = with_path(base, &[segment]);
    url.query_pairs_mut().append_pair(name, value);
    url
}
