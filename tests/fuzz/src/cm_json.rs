//! CM's answers. The input is the body of one.

use cardbridge::domain::{CardRecord, CmRequest, RecordId};
use cardbridge::wire::cm::{
    ParseError, RequestListReader, RequestSummary, error_text, records, requests, single_line,
    status_update,
};
use uuid::Uuid;

/// The longest line that a server's message becomes: 200 characters and a mark.
const LONGEST_LINE: usize = 201;

/// The most records that are looked for in a list.
const MAX_WANTED: usize = 8;

/// Reads the input as every answer that CM gives.
pub fn check(body: &[u8]) {
    match records(body) {
        Ok(records) => are_in(&records, body),
        Err(why) => is_plain(&why),
    }
    a_list(body);
    let found = error_text(body);
    assert!(is_line(&found.message), "{found:?}");
    if let Some(id) = found.correlation_id {
        assert!(is_in(&id, body), "{id}");
    }
    if let Ok(text) = str::from_utf8(body) {
        let line = single_line(text);
        assert!(is_line(&line), "{line:?}");
        assert_eq!(single_line(&line), line, "a line is unchanged");
        let update: Option<serde_json::Value> = serde_json::from_str(&status_update(text)).ok();
        assert_eq!(update, Some(serde_json::json!({ "status": text })));
    }
}

fn are_in(records: &[CardRecord], body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    assert!(records.len() <= 1000);
    for (number, record) in records.iter().enumerate() {
        let CardRecord { id, serial_number, raw, .. } = record;
        assert!(!is_nil(*id) && is_in(&id.to_string(), body), "{record:?}");
        assert!(!records.iter().take(number).any(|other| other.id == *id), "{id} is there twice");
        assert_eq!(serial_number.trim(), serial_number);
        assert!(text.contains(&**raw), "{record:?}");
        let again = self::records(raw.as_bytes()).unwrap_or_default();
        assert_eq!(again, std::slice::from_ref(record), "an object is read as it was in the list");
    }
}

fn a_list(body: &[u8]) {
    let whole = read(body.chunks(body.len().max(1)));
    let halves = read(body.chunks(body.len().div_ceil(2).max(1)));
    let bytes = read(body.chunks(1));
    assert_eq!(format!("{whole:?}"), format!("{halves:?}"), "in two pieces");
    assert_eq!(format!("{whole:?}"), format!("{bytes:?}"), "byte by byte");
    let list = match whole {
        Ok(list) => list,
        Err(why) => return is_plain(&why),
    };
    let wanted = ids_in(body);
    assert!(requests(&list, &[]).is_ok_and(|none| none.is_empty()), "requests for no card");
    match requests(&list, &wanted) {
        Ok(found) => {
            for request in &found {
                assert!(wanted.iter().any(|record| request.names(*record)), "{request:?}");
                is_of(request, body);
            }
        }
        Err(why) => is_plain(&why),
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<RequestSummary>, ParseError> {
    let mut reader = RequestListReader::default();
    for piece in pieces {
        if !reader.push(piece) {
            break;
        }
    }
    reader.finish()
}

fn is_of(request: &CmRequest, body: &[u8]) {
    assert!(is_in(&request.id.to_string(), body), "{request:?}");
    for card in [request.old_card, request.new_card].into_iter().flatten() {
        assert!(!is_nil(card) && is_in(&card.to_string(), body), "{request:?}");
    }
}

fn is_plain(why: &ParseError) {
    let message = why.to_string();
    assert!(
        !message.is_empty() && message.len() < 1000 && !message.contains(char::is_control),
        "{why:?}"
    );
}

fn is_line(text: &str) -> bool {
    text.chars().count() <= LONGEST_LINE && !text.contains(char::is_control)
}

fn is_nil(id: RecordId) -> bool {
    id.to_string().chars().all(|c| matches!(c, '0' | '-'))
}

/// GUIDs that are written out in the body, and one that may not be.
fn ids_in(body: &[u8]) -> Vec<RecordId> {
    let written = body.windows(36).filter(|window| window.get(8) == Some(&b'-'));
    let written = written.filter_map(|window| Uuid::try_parse_ascii(window).ok());
    let one = Uuid::from_u128(0x17CF_063D_E337_4AA9_A822_3465_54DD_D3C9);
    written.take(MAX_WANTED).chain([one]).filter_map(RecordId::new).collect()
}

/// Whether a GUID is written in the body, in any of its forms, plain or in JSON's escapes.
fn is_in(id: &str, body: &[u8]) -> bool {
    let digits = |text: &str| text.to_ascii_lowercase().replace('-', "");
    let text = String::from_utf8_lossy(body);
    let id = digits(id);
    digits(&text).contains(&id) || digits(&without_escapes(&text)).contains(&id)
}

fn without_escapes(text: &str) -> String {
    let mut pieces = text.split("\\u");
    let mut plain = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(4).unwrap_or(("", piece));
        let letter = u32::from_str_radix(code, 16).ok().and_then(char::from_u32);
        plain.push(letter.unwrap_or('\\'));
        plain.push_str(rest);
    }
    plain
}
