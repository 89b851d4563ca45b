//! Pages of IIS, and of the driver http.sys before it.

use super::answer::{Answer, Origin, reason};

/// What the sub-status codes mean.
const DETAILS: &[(u16, u16, &str)] = &[
    (401, 1, "Logon failed"),
    (401, 2, "Logon failed due to server configuration"),
    (403, 4, "SSL required"),
    (403, 7, "Client certificate required"),
    (403, 13, "Client certificate revoked"),
    (403, 16, "Client certificate is untrusted or invalid"),
    (404, 0, "Not found"),
    (404, 7, "File extension denied"),
    (405, 0, "Method not allowed"),
    (413, 1, "Content length too large"),
    (500, 19, "Configuration data is invalid"),
    (502, 3, "Bad gateway"),
    (503, 0, "Application pool unavailable"),
    (503, 2, "Concurrent request limit exceeded"),
];

/// IIS's page for an error; one that names the sub-status where it is given.
pub(super) fn error(status: u16, substatus: Option<u16>) -> Answer {
    let answer = match substatus {
        None => Answer::html(status),
        Some(substatus) => Answer { body: detailed(status, substatus), ..Answer::html(status) },
    };
    match status {
        401 => answer.with_header("WWW-Authenticate", "Negotiate"),
        405 => answer.with_header("Allow", "GET, HEAD, OPTIONS, TRACE"),
        _ => answer,
    }
}

fn detailed(status: u16, substatus: u16) -> Vec<u8> {
    let reason = reason(status);
    let known = DETAILS.iter().find(|(code, sub, _)| (*code, *sub) == (status, substatus));
    let meaning = known.map_or(reason, |(_, _, meaning)| meaning);
    format!(
        "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\">\r\n<html>\r\n<head>\r\n\
         <title>IIS 10.0 Detailed Error - {status}.{substatus} - {reason}</title>\r\n</head>\r\n\
         <body>\r\n<h3>HTTP Error {status}.{substatus} - {reason}</h3>\r\n\
         <h4>{meaning}</h4>\r\n</body>\r\n</html>\r\n"
    )
    .into_bytes()
}

/// The application pool is stopped: IIS is not even asked.
pub(super) fn pool_stopped() -> Answer {
    of_driver(503, "Service Unavailable", "The service is unavailable.")
}

/// The header is too long, as with the ticket of a member of many groups.
pub(super) fn head_too_long() -> Answer {
    let heading = "Bad Request - Request Too Long";
    of_driver(400, heading, "The size of the request headers is too long.")
}

fn of_driver(status: u16, heading: &str, text: &str) -> Answer {
    let page = format!(
        "<!DOCTYPE HTML PUBLIC \"-//W3C//DTD HTML 4.01//EN\">\r\n<HTML><HEAD>\
         <TITLE>{title}</TITLE></HEAD>\r\n<BODY><h2>{heading}</h2>\r\n\
         <hr><p>HTTP Error {status}. {text}</p>\r\n</BODY></HTML>\r\n",
        title = reason(status),
    );
    Answer { origin: Origin::Driver, body: page.into_bytes(), ..Answer::html(status) }
}

/// The caller is sent elsewhere.
pub(super) fn moved(status: u16, location: &str) -> Answer {
    let page = format!(
        "<head><title>Document Moved</title></head>\n\
         <body><h1>Object Moved</h1>This document may be found <a HREF=\"{location}\">here</a></body>"
    );
    let answer = Answer { body: page.into_bytes(), ..Answer::html(status) };
    answer.with_header("Location", location)
}
