//! Every released version's file can be read.
//!
//! `tests/fixtures/outbox/v<N>.db` was written by version N and is never written again. A new
//! version gets its own: `WRITE_FIXTURE=1 cargo test --lib fixture`.

use super::*;
use crate::outbox::OutboxContents;

fn fixture(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/outbox/v{version}.db"))
}

/// A copy: opening a file may change it.
pub(super) fn copy_of(version: u32) -> Place {
    let place = Place::new();
    let from = fixture(version);
    std::fs::copy(&from, place.path())
        .unwrap_or_else(|error| panic!("{} is missing: {error}", from.display()));
    place
}

/// One of everything that is stored.
async fn fill(outbox: &Outbox) {
    for number in 1..=4 {
        outbox.append(append(number)).await.unwrap();
    }
    outbox.save(id(2), Stage::Sent(decision(2))).await.unwrap();
    let refused = Settlement { decision: Some(decision(3)), ..parked() };
    outbox.settle(id(3), refused).await.unwrap();
    let end = Settlement { decision: Some(decision(4)), ..end(Outcome::Updated) };
    outbox.settle(id(4), end).await.unwrap();
    outbox.append_audit(not_identified(120)).await.unwrap();
    let entry = Entry { id: id(3), card_event: card_event(3), stage: Stage::Queued };
    outbox
        .append_audit(AuditLine::operator_action("desk-3", &entry, "discard", "uid 0", at(130)))
        .await
        .unwrap();
}

/// Writes the fixture of this version, once; a released one is never changed.
async fn write_where_asked() {
    let path = fixture(database::VERSION);
    if std::env::var_os("WRITE_FIXTURE").is_none() || path.exists() {
        return;
    }
    let place = Place::new();
    let (outbox, _) = place.open();
    fill(&outbox).await;
    outbox.close();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::copy(place.path(), path).unwrap();
}

/// What was read, without what version 0.1 did not have: the strength of an audit line's id, and what
/// distinguishes cards with the same id.
fn as_before(mut restored: OutboxContents) -> OutboxContents {
    for line in &mut restored.latest {
        line.id_strength = None;
    }
    for seen in &mut restored.last_seen {
        seen.card = id_alone(&seen.card.to_string()).to_owned().try_into().unwrap();
    }
    restored
}

/// The card's id of a key.
fn id_alone(card: &str) -> &str {
    card.split(' ').next().unwrap()
}

/// A cell, without what version 0.1 did not write. Checksums and hashes are of another text.
fn cell_as_before(cell: rusqlite::types::Value) -> rusqlite::types::Value {
    use rusqlite::types::Value;
    match cell {
        Value::Text(text) => match serde_json::from_str(&text) {
            Ok(mut json) => {
                forget(&mut json);
                Value::Text(json.to_string())
            }
            Err(_) if text.contains(' ') => Value::Text(id_alone(&text).to_owned()),
            Err(_) if text.len() == 64 => Value::Null,
            Err(_) => Value::Text(text),
        },
        Value::Blob(_) => Value::Null,
        cell @ (Value::Null | Value::Integer(_) | Value::Real(_)) => cell,
    }
}

/// The names that version 0.1 gave the fields of a decision.
fn name_as_before((name, value): (String, serde_json::Value)) -> (String, serde_json::Value) {
    let before = match name.as_str() {
        "old_status" => "from",
        "new_status" => "to",
        "new_status_name" => "to_name",
        same => same,
    };
    (before.to_owned(), value)
}

fn forget(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(fields) => {
            for added in ["strength", "id_strength"] {
                fields.shift_remove(added);
            }
            if let Some(serde_json::Value::String(card)) = fields.get_mut("card") {
                *card = id_alone(card).to_owned();
            }
            if fields.contains_key("candidate") {
                *fields = std::mem::take(fields).into_iter().map(name_as_before).collect();
            }
            if fields.get("kind").is_some_and(|kind| kind == "operator-action") {
                fields.insert("kind".to_owned(), "act".into());
            }
            fields.values_mut().for_each(forget);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[tokio::test]
async fn every_version_has_a_fixture_and_is_read() {
    write_where_asked().await;
    let today = Place::new();
    let (outbox, _) = today.open();
    fill(&outbox).await;
    outbox.close();
    let expected = as_before(today.restored());
    assert_eq!(
        (expected.entries.len(), expected.last_seen.len(), expected.latest.len()),
        (3, 1, 4)
    );

    for version in 1..=database::VERSION {
        let place = copy_of(version);
        assert_eq!(as_before(place.restored()), expected, "version {version}");
        // It is a working outbox afterwards.
        let (outbox, _) = place.open();
        assert_eq!(outbox.append(append(5)).await.unwrap().entry, id(5));
    }
}

#[test]
fn schema_equals_fixture_schema() {
    let today = Place::new();
    today.open().0.close();
    let released = copy_of(database::VERSION);
    let schema = |place: &Place| -> Vec<Option<String>> {
        let conn = place.sqlite();
        let mut statement = conn.prepare("SELECT sql FROM sqlite_schema ORDER BY name").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(schema(&today), schema(&released), "a change of the schema is a new version");
}

#[tokio::test]
async fn written_rows_equal_fixture_rows_without_later_fields() {
    let today = Place::new();
    let (outbox, _) = today.open();
    fill(&outbox).await;
    outbox.close();
    let released = copy_of(database::VERSION);
    for table in ["entry", "audit", "stay", "chain"] {
        let rows = |place: &Place| -> Vec<Vec<rusqlite::types::Value>> {
            let conn = place.sqlite();
            let mut statement = conn.prepare(&format!("SELECT * FROM {table} ORDER BY 1")).unwrap();
            let columns = statement.column_count();
            statement
                .query_map([], |row| (0..columns).map(|i| row.get(i).map(cell_as_before)).collect())
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap()
        };
        assert_eq!(rows(&today), rows(&released), "{table}");
    }
}
