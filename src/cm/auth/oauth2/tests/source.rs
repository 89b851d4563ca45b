//! One request for all, renewal, back-off and refused tokens, by a clock that the tests turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::time::{Instant, advance, sleep};

use super::super::token_provider::{
    AccessToken, FileVersions, RejectionAction, TokenError, TokenIssuer, TokenProvider,
};
use crate::cm::secret::FileVersion;
use crate::domain::{CallError, UnavailableReason};

const SECOND: Duration = Duration::from_secs(1);

/// An issuer that numbers its tokens.
struct Scripted {
    name: String,
    asked: Arc<AtomicUsize>,
    life: Duration,
    /// How long an answer takes.
    takes: Duration,
    /// What goes wrong, and what the proof's file is like.
    now: Mutex<(Option<TokenError>, FileVersions)>,
}

impl TokenIssuer for Scripted {
    async fn request_token(&self) -> Result<AccessToken, TokenError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let asked = Instant::now();
        sleep(self.takes).await;
        match self.now.lock().unwrap().0.clone() {
            Some(failure) => Err(failure),
            None => Ok(AccessToken {
                header: HeaderValue::try_from(format!("Bearer {number}")).unwrap(),
                asked,
                life: self.life,
                until: Timestamp::UNIX_EPOCH + self.life,
            }),
        }
    }

    fn file_versions(&self) -> FileVersions {
        self.now.lock().unwrap().1.clone()
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A source whose tokens live so long, from an issuer that takes so long.
fn source(life: Duration, takes: Duration) -> TokenProvider<Scripted> {
    let (asked, now) = (Arc::default(), Mutex::default());
    let name = "adfs.example.com:443".to_owned();
    TokenProvider::new(Scripted { name, asked, life, takes, now })
}

fn asked(source: &TokenProvider<Scripted>) -> usize {
    source.issuer().asked.load(Ordering::SeqCst)
}

fn fails(source: &TokenProvider<Scripted>, failure: Option<TokenError>) {
    source.issuer().now.lock().unwrap().0 = failure;
}

fn down() -> TokenError {
    TokenError { message: "no token: it is down".to_owned(), retry_after: None, asked: true }
}

async fn token(source: &TokenProvider<Scripted>) -> Result<String, CallError> {
    let header = source.token(Instant::now() + 10 * SECOND).await?;
    Ok(header.to_str().unwrap().to_owned())
}

#[track_caller]
fn assert_none(result: Result<String, CallError>, expected: &str) -> Option<Duration> {
    match result {
        Err(CallError::Unavailable {
            reason: UnavailableReason::Credentials,
            detail,
            retry_after,
        }) => {
            assert!(detail.contains(expected), "{detail}");
            retry_after
        }
        other => panic!("{other:?}"),
    }
}

/// Lets whatever is due happen, without the clock moving.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_calls_at_once_make_one_request() {
    let source = source(3600 * SECOND, SECOND);
    let calls = (0..50).map(|_| token(&source));
    for result in join_all(calls).await {
        assert_eq!(result.unwrap(), "Bearer 1");
    }
    assert_eq!(asked(&source), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_gives_up_leaves_the_request_to_the_others() {
    let source = source(3600 * SECOND, 5 * SECOND);
    // The first one starts the request, and has less time than it takes.
    let hurried = async {
        let header = source.token(Instant::now() + SECOND).await;
        header.map(|header| header.to_str().unwrap().to_owned())
    };
    let (hurried, patient) = tokio::join!(hurried, token(&source));
    assert_none(hurried, "adfs.example.com:443: none came in time");
    assert_eq!(patient.unwrap(), "Bearer 1");
    assert_eq!(asked(&source), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_cancelled_leaves_the_request_to_the_others() {
    let source = source(3600 * SECOND, 5 * SECOND);
    tokio::select! {
        biased;
        _ = token(&source) => panic!("nothing was issued yet"),
        () = settle() => {}
    }
    assert_eq!(token(&source).await.unwrap(), "Bearer 1");
    assert_eq!(asked(&source), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_serves_until_its_end_is_near_and_is_renewed_beside_the_calls() {
    let source = source(100 * SECOND, SECOND);
    assert_eq!(token(&source).await.unwrap(), "Bearer 1");
    advance(78 * SECOND).await;
    assert_eq!(token(&source).await.unwrap(), "Bearer 1");
    settle().await;
    assert_eq!(asked(&source), 1, "after 79 of 100 s");
    advance(SECOND).await;
    // At 80 s; no call waits for the renewal, and only one is made.
    for _ in 0..3 {
        assert_eq!(token(&source).await.unwrap(), "Bearer 1");
        settle().await;
    }
    assert_eq!(asked(&source), 2);
    sleep(2 * SECOND).await;
    assert_eq!(token(&source).await.unwrap(), "Bearer 2");
}

#[tokio::test(start_paused = true)]
async fn no_call_fails_or_waits_across_many_renewals() {
    let source = source(5 * SECOND, SECOND / 2);
    token(&source).await.unwrap();
    for _ in 0..1000 {
        sleep(SECOND / 10).await;
        let before = Instant::now();
        token(&source).await.unwrap();
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    assert!((24..=27).contains(&asked(&source)), "{}", asked(&source));
}

#[tokio::test(start_paused = true)]
async fn an_idle_station_asks_for_nothing_and_waits_for_a_new_token_after_the_old_ones_end() {
    let source = source(100 * SECOND, SECOND);
    token(&source).await.unwrap();
    sleep(100_000 * SECOND).await;
    assert_eq!(asked(&source), 1);
    assert_eq!(token(&source).await.unwrap(), "Bearer 2");
}

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_asked_at_growing_distances_and_calls_fail_at_once_between() {
    let source = source(3600 * SECOND, Duration::ZERO);
    fails(&source, Some(down()));
    let (mut gaps, mut last) = (Vec::new(), None);
    let started = Instant::now();
    while started.elapsed() < 600 * SECOND {
        let (before, count) = (Instant::now(), asked(&source));
        assert_none(token(&source).await, "it is down");
        assert_eq!(before.elapsed(), Duration::ZERO);
        if asked(&source) > count {
            gaps.extend(last.replace(before).map(|last: Instant| before - last));
        }
        advance(SECOND / 20).await;
    }
    for (gap, longest) in gaps.iter().zip([1, 2, 4, 8, 16, 32, 60, 60, 60, 60]) {
        let longest = longest * SECOND;
        assert!(*gap >= longest / 2 && *gap <= longest + SECOND / 10, "{gaps:?}");
    }
    assert!(gaps.len() <= 25, "{gaps:?}");
    // It is back, and the back-off has ended.
    fails(&source, None);
    sleep(60 * SECOND).await;
    token(&source).await.unwrap();
    assert_eq!(source.view().1, None);
    sleep(3600 * SECOND).await;
    fails(&source, Some(down()));
    let wait = assert_none(token(&source).await, "it is down");
    assert_eq!(wait, None);
    let left = assert_none(token(&source).await, "it is down").unwrap();
    assert!(left <= SECOND, "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_does_not_take_the_token_away() {
    let source = source(100 * SECOND, Duration::ZERO);
    token(&source).await.unwrap();
    fails(&source, Some(down()));
    advance(80 * SECOND).await;
    for _ in 0..190 {
        assert_eq!(token(&source).await.unwrap(), "Bearer 1");
        settle().await;
        advance(SECOND / 10).await;
    }
    assert!((5..=7).contains(&asked(&source)), "{}", asked(&source));
    assert_eq!(source.view().1.as_deref(), Some("no token: it is down"));
    advance(2 * SECOND).await;
    assert_none(token(&source).await, "it is down");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_when_to_come_back_is_not_asked_before() {
    let source = source(3600 * SECOND, Duration::ZERO);
    fails(&source, Some(TokenError { retry_after: Some(300 * SECOND), ..down() }));
    assert_eq!(assert_none(token(&source).await, "it is down"), Some(300 * SECOND));
    fails(&source, None);
    advance(299 * SECOND).await;
    assert_eq!(assert_none(token(&source).await, "it is down"), Some(SECOND));
    advance(SECOND).await;
    assert_eq!(token(&source).await.unwrap(), "Bearer 2");
}

#[tokio::test(start_paused = true)]
async fn an_operator_does_not_wait_for_what_the_endpoint_said() {
    let source = source(3600 * SECOND, Duration::ZERO);
    fails(&source, Some(TokenError { retry_after: Some(3600 * SECOND), ..down() }));
    assert_none(token(&source).await, "it is down");
    fails(&source, None);
    assert_none(token(&source).await, "it is down");
    source.expedite();
    assert_eq!(token(&source).await.unwrap(), "Bearer 2");
}

#[tokio::test(start_paused = true)]
async fn another_secret_is_tried_at_once() {
    let source = source(3600 * SECOND, Duration::ZERO);
    fails(&source, Some(down()));
    assert_none(token(&source).await, "it is down");
    fails(&source, None);
    assert_none(token(&source).await, "it is down");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, "another").unwrap();
    source.issuer().now.lock().unwrap().1 = vec![Some(FileVersion::of(&path).unwrap())];
    assert_eq!(token(&source).await.unwrap(), "Bearer 2");
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_before_anything_is_sent_is_looked_at_again_each_time() {
    let source = source(3600 * SECOND, Duration::ZERO);
    fails(&source, Some(TokenError { asked: false, ..down() }));
    for _ in 0..3 {
        assert_none(token(&source).await, "it is down");
    }
    assert_eq!(asked(&source), 3);
    fails(&source, None);
    assert_eq!(token(&source).await.unwrap(), "Bearer 4");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cm_refuses_is_replaced_once_for_all_who_had_it() {
    let source = source(3600 * SECOND, Duration::ZERO);
    let first = source.token(Instant::now() + SECOND).await.unwrap();
    for _ in 0..5 {
        assert_eq!(source.on_rejected(&first), RejectionAction::Renew);
        assert_eq!(token(&source).await.unwrap(), "Bearer 2");
    }
    assert_eq!(asked(&source), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_every_token_costs_a_request_now_and_then() {
    let source = source(3600 * SECOND, Duration::ZERO);
    let mut fresh = 0;
    for _ in 0..6000 {
        let header = source.token(Instant::now() + SECOND).await.unwrap();
        fresh += usize::from(source.on_rejected(&header) == RejectionAction::GiveUp);
        advance(SECOND / 10).await;
    }
    // In ten minutes: at 0, 1, 3, 7, 15, 31 and 63 s, and then once a minute.
    assert!((14..=18).contains(&asked(&source)), "{}", asked(&source));
    assert!(fresh > 5900, "{fresh}");
}

#[tokio::test(start_paused = true)]
async fn tokens_that_end_sooner_than_was_said_are_replaced_each_time() {
    let source = source(3600 * SECOND, Duration::ZERO);
    for number in 1..20 {
        let header = source.token(Instant::now() + SECOND).await.unwrap();
        assert_eq!(header, format!("Bearer {number}"));
        advance(30 * SECOND).await;
        assert_eq!(source.on_rejected(&header), RejectionAction::Renew);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_provider_aborts_its_request() {
    let source = source(3600 * SECOND, 5 * SECOND);
    let asked = Arc::clone(&source.issuer().asked);
    tokio::select! {
        biased;
        _ = token(&source) => panic!("nothing was issued yet"),
        () = settle() => {}
    }
    drop(source);
    settle().await;
    assert_eq!(Arc::strong_count(&asked), 1);
}

/// All of these, side by side.
async fn join_all<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| Some(Box::pin(future))).collect();
    let mut done: Vec<_> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (slot, done) in waiting.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                (*done, *slot) = (Some(output), None);
            }
        }
        let open = waiting.iter().any(Option::is_some);
        if open { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    done.into_iter().flatten().collect()
}
