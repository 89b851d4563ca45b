//! Reading the audit trail; and that no line is changed or deleted.

use super::super::read_only::{OF_ALL, OF_CARD};
use super::*;

async fn walk(outbox: &Outbox, mut filter: AuditFilter) -> Vec<AuditLine> {
    let mut lines = Vec::new();
    loop {
        let page = outbox.audit(filter.clone()).await.unwrap();
        assert!(page.lines.len() <= filter.limit);
        lines.extend(page.lines.into_iter().map(|it| it.line));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return lines,
        }
    }
}

#[tokio::test]
async fn pages_of_every_size_have_all_lines_in_order() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let mut lines = Vec::new();
    for number in 0..25 {
        // Five lines share each instant, and the clock was set back once.
        let line = not_identified(10 - number / 5);
        lines.push(AuditLine { attempts: u32::try_from(number).unwrap(), ..line });
    }
    for line in &lines {
        outbox.append_audit(line.clone()).await.unwrap();
    }
    lines.sort_by_key(|line| line.at);
    for limit in [1, 4, 5, 24, 25, 26, MAX_PAGE_LINES] {
        let filter = AuditFilter { limit, ..AuditFilter::default() };
        assert_eq!(walk(&outbox, filter).await, lines, "limit {limit}");
    }
}

#[tokio::test]
async fn page_size_is_bounded() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let notes: Vec<_> =
        (0..1001).map(|number| outbox.append_audit(not_identified(number))).collect();
    for note in notes {
        note.await.unwrap();
    }
    let filter = AuditFilter { limit: usize::MAX, ..AuditFilter::default() };
    assert_eq!(outbox.audit(filter.clone()).await.unwrap().lines.len(), MAX_PAGE_LINES);
    assert_eq!(walk(&outbox, filter).await.len(), 1001);
    let none = AuditFilter { limit: 0, ..AuditFilter::default() };
    assert_eq!(outbox.audit(none).await.unwrap().lines.len(), 1);
}

#[tokio::test]
async fn lines_are_found_by_time_and_card() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=4_u8 {
        outbox.append(append(number % 2 + 1)).await.unwrap();
        let end = Settlement { at: at(number.into()), ..end(Outcome::NothingToDo) };
        outbox.settle(id(number.into()), end).await.unwrap();
    }
    outbox.append_audit(not_identified(5)).await.unwrap();

    let found = async |filter: AuditFilter| -> Vec<i64> {
        let lines = walk(&outbox, AuditFilter { limit: 1, ..filter }).await;
        lines.iter().map(|line| line.at.as_second() - at(0).as_second()).collect()
    };
    let all = AuditFilter::default();
    assert_eq!(found(all.clone()).await, [1, 2, 3, 4, 5]);
    assert_eq!(found(AuditFilter { since: Some(at(2)), ..all.clone() }).await, [2, 3, 4, 5]);
    assert_eq!(found(AuditFilter { until: Some(at(2)), ..all.clone() }).await, [1]);
    assert_eq!(found(AuditFilter { card: Some(card(1)), ..all.clone() }).await, [2, 4]);
    let both = AuditFilter { card: Some(card(2)), since: Some(at(2)), until: Some(at(5)), ..all };
    assert_eq!(found(both).await, [3]);
}

#[tokio::test]
async fn lines_are_ordered_by_fractions_of_a_second() {
    let place = Place::new();
    let (outbox, _) = place.open();
    let instants = [0, 5, 50_000, 500_000_000, 500_000_001]
        .map(|nanosecond| Timestamp::new(1_700_000_000, nanosecond).unwrap());
    for at in instants.into_iter().rev() {
        outbox.append_audit(AuditLine { at, ..not_identified(0) }).await.unwrap();
    }
    let lines = walk(&outbox, AuditFilter::default()).await;
    assert_eq!(lines.iter().map(|line| line.at).collect::<Vec<_>>(), instants);
}

#[tokio::test]
async fn opening_returns_newest_twenty_lines() {
    let place = Place::new();
    let (outbox, _) = place.open();
    for number in 1..=25 {
        outbox.append_audit(not_identified(number)).await.unwrap();
    }
    outbox.close();
    let instants: Vec<_> = place.restored().latest.into_iter().map(|line| line.at).collect();
    assert_eq!(instants, (6..=25).rev().map(at).collect::<Vec<_>>());
}

#[tokio::test]
async fn triggers_prevent_changing_and_deleting_lines() {
    let place = Place::new();
    let (outbox, _) = place.open();
    outbox.append_audit(not_identified(1)).await.unwrap();
    let other = place.sqlite();
    for sql in ["UPDATE audit SET outcome = 'updated'", "DELETE FROM audit"] {
        assert!(other.execute(sql, []).unwrap_err().to_string().contains("append-only"));
    }
    assert_eq!(place.outcomes(), [(None, "not-identified".to_owned())]);
}

#[test]
fn page_is_read_through_an_index_without_sorting() {
    let place = Place::new();
    place.open().0.close();
    let conn = place.sqlite();
    for condition in [OF_ALL, OF_CARD] {
        let sql = row::AUDIT.select(condition);
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let mut rows = statement.raw_query();
        let mut plan = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            plan.push(row.get::<_, String>("detail").unwrap());
        }
        let plan = plan.join("; ");
        assert!(plan.starts_with("SEARCH audit USING INDEX"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}
