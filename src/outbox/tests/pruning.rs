//! How much of the audit trail is pruned, where a clock may be wrong.

use super::*;

/// The lines that are left.
async fn left(outbox: &Outbox) -> Vec<Timestamp> {
    let page = outbox.audit(AuditFilter::default()).await.unwrap();
    page.lines.iter().map(|it| it.line.at).collect()
}

#[tokio::test]
async fn one_run_prunes_a_tenth_of_the_trail() {
    for (lines, runs) in [(3, vec![1, 1, 1, 0]), (25, vec![3, 3, 2]), (1009, vec![101, 91])] {
        let place = Place::new();
        let (outbox, _) = place.open();
        let notes: Vec<_> =
            (0..lines).map(|number| outbox.append_audit(not_identified(number))).collect();
        for note in notes {
            note.await.unwrap();
        }
        outbox.append_audit(not_identified(1_000_000)).await.unwrap();
        for most in runs {
            let pruned = outbox.prune(Duration::from_hours(24), at(1_000_000)).await.unwrap();
            assert_eq!(pruned, most, "of {lines}");
        }
    }
}

#[tokio::test]
async fn line_of_unset_clock_is_as_old_as_next() {
    const DAY: i64 = 24 * 3600;
    let place = Place::new();
    let (outbox, _) = place.open();
    let unset = -1_700_000_000;
    for second in [unset, unset + 5, 10 * DAY, unset + 9, 20 * DAY] {
        outbox.append_audit(not_identified(second)).await.unwrap();
    }
    let keep = Duration::from_hours(24 * 15);
    assert_eq!(outbox.prune(keep, at(20 * DAY)).await.unwrap(), 0);
    outbox.append_audit(not_identified(26 * DAY)).await.unwrap();
    assert_eq!(
        prune_all(&outbox, keep, at(26 * DAY)).await,
        3,
        "the fourth is as old as the fifth"
    );
    assert!(left(&outbox).await.contains(&at(unset + 9)));
}
