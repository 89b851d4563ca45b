//! The calls of CM's REST API.

use serde_json::Value;
use uuid::Uuid;

use super::answer::Answer;
use super::http::Call;
use super::model::{REQUEST_TYPE, Record, Request, number};
use super::store::{Refusal, Store};

/// The API's base path; its case does not matter.
pub const BASE_PATH: &str = "/CertificateManagement/api/v1.0";

/// What a call comes to.
pub(super) struct Done {
    pub(super) answer: Answer,
    /// Whether CM did what a PUT or POST asked for.
    pub(super) applied: bool,
}

/// Performs a call on CM's state.
pub(super) fn perform(store: &mut Store, call: &Call) -> Done {
    let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
    let path = path.to_ascii_lowercase();
    let Some(path) = path.strip_prefix(&BASE_PATH.to_ascii_lowercase()) else {
        return Done::unchanged(Answer::html(404));
    };
    if !path.is_empty() && !path.starts_with('/') {
        return Done::unchanged(Answer::html(404));
    }
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("GET", _) => Done::unchanged(get(store, &segments, query)),
        ("PUT", ["requests", request, "smartcards", card]) => {
            Done::changed(put_card(store, request, card, call))
        }
        ("PUT", ["requests", request]) => Done::changed(put_request(store, request, call)),
        ("POST", ["smartcards"]) => Done::changed(post_card(store, call)),
        ("POST", ["requests"]) => Done::changed(post_request(store, call)),
        _ => Done::unchanged(Answer::html(405).with_header("Allow", "GET")),
    }
}

impl Done {
    fn unchanged(answer: Answer) -> Self {
        Self { answer, applied: false }
    }

    fn changed(result: Result<Answer, Refusal>) -> Self {
        let applied = result.is_ok();
        let answer = result.unwrap_or_else(|refusal| match refusal {
            Refusal::Forbidden => Answer::forbidden(),
            Refusal::Failure => Answer::failure(Uuid::new_v4()),
        });
        Self { answer, applied }
    }
}

fn get(store: &Store, segments: &[&str], query: &str) -> Answer {
    let failure = || Answer::failure(Uuid::new_v4());
    match segments {
        ["smartcards"] => match parameter(query, "cardid").map(Uuid::try_parse) {
            Some(Ok(card)) => cards(&store.of_card(card)),
            Some(Err(_)) | None => failure(),
        },
        ["smartcards", uuid] => found(guid(uuid).and_then(|uuid| store.record(uuid)), Record::json),
        ["smartcards", uuid, "operations"] => {
            let operations = guid(uuid).and_then(|uuid| store.operations(uuid));
            found(operations, |names| Value::from(names.to_vec()).to_string())
        }
        // Of whose requests are asked for, `current` is all that CM knows.
        ["requests"] => match store.requests_in(parameter(query, "status")) {
            Some(requests) if parameter(query, "targetuser").is_none_or(is_current) => {
                Answer::json(200, array(&requests, |request| request.json()))
            }
            Some(_) | None => failure(),
        },
        ["requests", uuid] => found(guid(uuid).and_then(|uuid| store.request(uuid)), Request::json),
        ["profiletemplates"] => Answer::json(200, templates(store)),
        _ => Answer::html(404),
    }
}

/// One object for one record, an array for several, 204 for none.
fn cards(records: &[&Record]) -> Answer {
    match records {
        [] => Answer::no_content(),
        [record] => Answer::json(200, record.json()),
        several => Answer::json(200, array(several, |record| record.json())),
    }
}

fn found<T>(object: Option<T>, json: impl FnOnce(T) -> String) -> Answer {
    object.map_or_else(Answer::no_content, |object| Answer::json(200, json(object)))
}

fn array<T>(objects: &[T], json: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = objects.iter().map(json).collect();
    format!("[{}]", items.join(","))
}

fn templates(store: &Store) -> String {
    let ids = store.records.iter().map(|record| record.profile_template_uuid);
    let mut ids: Vec<Uuid> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    array(&ids, |id| {
        format!(
            r#"{{"Name":"Smart card","Description":"","Uuid":"{id}","IsSmartcardProfileTemplate":true}}"#
        )
    })
}

fn put_card(store: &mut Store, request: &str, card: &str, call: &Call) -> Result<Answer, Refusal> {
    let body = body(call)?;
    let status = text(&body, "status").ok_or(Refusal::Failure)?;
    let request = guid(request).ok_or(Refusal::Failure)?;
    let card = guid(card).ok_or(Refusal::Failure)?;
    let record = store.put_card_status(request, card, status)?;
    Ok(Answer::json(200, record.json()))
}

fn put_request(store: &mut Store, request: &str, call: &Call) -> Result<Answer, Refusal> {
    let body = body(call)?;
    let status = text(&body, "status").ok_or(Refusal::Failure)?;
    let request = guid(request).ok_or(Refusal::Failure)?;
    let request = store.put_request_status(request, status)?;
    Ok(Answer::json(200, request.json()))
}

fn post_card(store: &mut Store, call: &Call) -> Result<Answer, Refusal> {
    let body = body(call)?;
    let id = |name| text(&body, name).and_then(guid).ok_or(Refusal::Failure);
    let (request, card) = (id("requestid")?, id("cardid")?);
    let uuid = store.bind_card(request, card, text(&body, "atr").unwrap_or(""))?;
    Ok(created("smartcards", uuid))
}

fn post_request(store: &mut Store, call: &Call) -> Result<Answer, Refusal> {
    let body = body(call)?;
    let request_type = text(&body, "type").and_then(|name| number(&REQUEST_TYPE, name));
    let card = text(&body, "smartcard").and_then(guid);
    let record = card.and_then(|card| store.record(card)).cloned().unwrap_or_default();
    let asked = Request::approved(request_type.ok_or(Refusal::Failure)?, &record);
    let priority = member(&body, "priority").and_then(Value::as_u64);
    let named = |name| text(&body, name).and_then(guid);
    let uuid = store.open_request(Request {
        comment: text(&body, "comment").unwrap_or("").to_owned(),
        priority: priority.and_then(|priority| priority.try_into().ok()).unwrap_or(0),
        profile_template_uuid: named("profiletemplateuuid").unwrap_or(asked.profile_template_uuid),
        target_user_uuid: named("target").unwrap_or(asked.target_user_uuid),
        ..asked
    });
    Ok(created("requests", uuid))
}

/// CM answers with a JSON string: a URI without host or leading slash.
fn created(collection: &str, uuid: Uuid) -> Answer {
    Answer::json(201, format!(r#""api/v1.0/{collection}/{uuid}""#))
}

/// A body counts only as what its content type says it is.
fn body(call: &Call) -> Result<Value, Refusal> {
    let content_type = call.header("content-type").unwrap_or("");
    if !content_type.starts_with("application/json") {
        return Err(Refusal::Failure);
    }
    serde_json::from_slice(&call.body).map_err(|_| Refusal::Failure)
}

fn member<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    let mut members = body.as_object()?.iter();
    members.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    member(body, name)?.as_str()
}

fn is_current(user: &str) -> bool {
    user.eq_ignore_ascii_case("current")
}

fn guid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok()
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let pair = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
    pair.map(|(_, value)| value)
}
