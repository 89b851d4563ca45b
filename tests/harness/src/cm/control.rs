//! `/_sim/`: the simulator worked by hand, with curl.

use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

use super::answer::Answer;
use super::fault::FaultRule;
use super::http::Call;
use super::server::Order;
use super::shared_state::SharedState;

/// What `/_sim/` offers, for `--help`.
pub const HELP: &str = "\
Control API, for curl:
  GET    /_sim/log        every call so far, as JSON
  GET    /_sim/state      records and requests
  POST   /_sim/state      replaces records and requests
  POST   /_sim/records    adds or replaces a record (CM's own JSON)
  POST   /_sim/requests   adds or replaces a request (CM's own JSON)
  POST   /_sim/approve/ID approves a pending request
  GET    /_sim/faults     the faults that are set
  POST   /_sim/faults     sets a fault, for example
         {\"fault\":\"slow\",\"ms\":2000,\"times\":3,\"method\":\"PUT\",\"path\":\"/smartcards/\"}
         times, method, path and body are optional. Faults: reset, slow (ms),
         hold-before, hold-after, answer-lost, unauthorized, forbidden,
         html-not-found, html-method-not-allowed,
         too-many-requests (retry_after), unavailable (retry_after),
         server-error (correlation), server-error-after (correlation), html-ok,
         no-content, no-content-after, bom, array-for-object, truncated-json,
         cut-in-body, other-uuid, huge (bytes), chunked, slow-body (ms),
         lower-case-names, challenge (schemes), iis-error (status, substatus),
         pool-stopped, head-too-long (bytes), redirect (status, location),
         any-ticket (persist_ms), stale-login (idle_ms), session-cookie,
         oauth-error (error), expires-in-text
  DELETE /_sim/faults     clears them
  POST   /_sim/release    releases the calls that are held
  POST   /_sim/away/MS    refuses connections for MS milliseconds
";

pub(super) fn perform(state: &SharedState, orders: &UnboundedSender<Order>, call: &Call) -> Answer {
    let segments: Vec<&str> = call.target.split('/').skip(2).collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("GET", ["log"]) => shown(&state.lock().log),
        ("GET", ["state"]) => shown(&state.lock().store),
        ("POST", ["state"]) => taken(call, |store| state.change(|inner| inner.store = store)),
        ("POST", ["records"]) => taken(call, |record| state.add_record(record)),
        ("POST", ["requests"]) => taken(call, |request| state.add_request(request)),
        ("POST", ["approve", id]) => match Uuid::try_parse(id) {
            Ok(id) => {
                state.change(|inner| inner.store.approve(id));
                Answer::no_content()
            }
            Err(error) => refused(&error),
        },
        ("GET", ["faults"]) => shown(&state.lock().rules),
        ("POST", ["faults"]) => taken(call, |rule: FaultRule| {
            state.change(|inner| inner.rules.push(rule));
        }),
        ("DELETE", ["faults"]) => {
            state.change(|inner| inner.rules.clear());
            Answer::no_content()
        }
        ("POST", ["release"]) => {
            state.change(|inner| inner.held.clear());
            Answer::no_content()
        }
        ("POST", ["away", ms]) => match ms.parse() {
            Ok(ms) => away(orders, Duration::from_millis(ms)),
            Err(error) => refused(&error),
        },
        _ => Answer::json(404, "\"see cm-sim --help\"\n"),
    }
}

/// Going away cuts every connection, this one too: its answer gets a head start.
fn away(orders: &UnboundedSender<Order>, length: Duration) -> Answer {
    let orders = orders.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(orders.send(Order::Away(channel().0)));
        tokio::time::sleep(length).await;
        drop(orders.send(Order::Back(channel().0)));
    });
    Answer::no_content()
}

fn shown(object: &impl Serialize) -> Answer {
    match serde_json::to_string_pretty(object) {
        Ok(json) => Answer::json(200, json + "\n"),
        Err(error) => refused(&error),
    }
}

fn taken<T: DeserializeOwned>(call: &Call, take: impl FnOnce(T)) -> Answer {
    match serde_json::from_slice(&call.body) {
        Ok(object) => {
            take(object);
            Answer::no_content()
        }
        Err(error) => refused(&error),
    }
}

fn refused(error: &dyn std::error::Error) -> Answer {
    let message = serde_json::Value::from(error.to_string());
    Answer::json(500, format!("{message}\n"))
}
