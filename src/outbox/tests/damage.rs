//! Rows and files that are not what was written.

use super::*;

/// Changes one byte of the file where `needle` is found in it, as a failing disk does.
fn flip(place: &Place, needle: &str) {
    let mut bytes = std::fs::read(place.path()).unwrap();
    let start = bytes
        .windows(needle.len())
        .position(|window| window == needle.as_bytes())
        .expect("the needle is in the file");
    bytes[start] ^= 1;
    std::fs::write(place.path(), bytes).unwrap();
}

pub(super) async fn two_entries(place: &Place) {
    let (outbox, _) = place.open();
    outbox.append(append(1)).await.unwrap();
    let other = CardEvent { reader: "Other".into(), label: "Desk 4".to_owned(), ..card_event(2) };
    outbox.append(AppendRequest { card_event: other, ..append(2) }).await.unwrap();
    outbox.close();
}

#[tokio::test]
async fn entry_with_flipped_bit_is_skipped_and_reported() {
    let place = Place::new();
    two_entries(&place).await;
    flip(&place, "Desk 4");

    let (outbox, restored) = place.open();
    assert_eq!(restored.entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), [id(1)]);
    assert_eq!(
        restored.damaged,
        [DamagedRow {
            table: "entry",
            row: "2".to_owned(),
            reason: "its checksum is wrong".to_owned()
        }]
    );
    let settled = outbox.settle(id(2), end(Outcome::Updated)).await;
    assert!(matches!(settled, Err(StoreError::Damaged(damaged, _)) if damaged == id(2)));
    outbox.settle(id(1), end(Outcome::Updated)).await.unwrap();
    assert_eq!(outbox.append(append(3)).await.unwrap().entry, id(3));
}

#[tokio::test]
async fn damaged_entry_blocks_no_new_one_and_is_kept() {
    let place = Place::new();
    two_entries(&place).await;
    flip(&place, "Desk 4");
    let (outbox, _) = place.open();
    let supersedes = vec![(id(2), Some(end(Outcome::Superseded)))];
    let appended = outbox.append(AppendRequest { supersedes, ..append(2) }).await.unwrap();
    assert_eq!(appended, AppendResult { entry: id(3), lines: vec![] });
    let listing = open_read_only(&place.path()).unwrap().entries().unwrap();
    assert_eq!((listing.entries.len(), listing.damaged.len()), (2, 1));
}

#[tokio::test]
async fn checksum_covers_every_cell() {
    let changes = [
        "UPDATE entry SET id = 9",
        "UPDATE entry SET seen_at = '2020-01-01T00:00:00.000000000Z'",
        "UPDATE entry SET card = 'x'",
        "UPDATE entry SET draft = replace(draft, 'desk', 'door')",
        "UPDATE entry SET stage = '{\"stage\": \"queued\"}'",
        "UPDATE entry SET seal = zeroblob(32)",
        "UPDATE entry SET seal = x''",
        "UPDATE stay SET reader = 'x'",
        "UPDATE stay SET stay = replace(stay, '1', '2')",
        "DROP TRIGGER audit_stays_as_written; UPDATE audit SET seq = 9",
        "DROP TRIGGER audit_stays_as_written; UPDATE audit SET outcome = 'updated'",
        "DROP TRIGGER audit_stays_as_written; UPDATE audit SET card = 'x'",
        "DROP TRIGGER audit_stays_as_written; UPDATE audit SET entry = 1",
        "DROP TRIGGER audit_stays_as_written; UPDATE audit SET line = replace(line, 'mute', 'busy')",
    ];
    for change in changes {
        let place = Place::new();
        let (outbox, _) = place.open();
        outbox.append(append(1)).await.unwrap();
        outbox.append_audit(not_identified(1)).await.unwrap();
        outbox.close();
        place.sqlite().execute_batch(change).unwrap();
        let restored = place.restored();
        let left = restored.entries.len() + restored.last_seen.len() + restored.latest.len();
        assert_eq!((left, restored.damaged.len()), (2, 1), "{change}");
    }
}

#[tokio::test]
async fn pages_continue_after_damaged_line() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=3 {
        let line = AuditLine { detail: format!("line {number}"), ..not_identified(number) };
        outbox.append_audit(line).await.unwrap();
    }
    outbox.close();
    flip(&place, "line 2");

    let (outbox, restored) = place.open();
    assert_eq!((restored.latest.len(), restored.damaged.len()), (2, 1));
    let mut filter = AuditFilter { limit: 1, ..AuditFilter::default() };
    let mut seen = (0, 0);
    loop {
        let page = outbox.audit(filter.clone()).await.unwrap();
        seen = (seen.0 + page.lines.len(), seen.1 + page.damaged.len());
        match page.next {
            Some(next) => filter.after = Some(next),
            None => break,
        }
    }
    assert_eq!(seen, (2, 1));
}
