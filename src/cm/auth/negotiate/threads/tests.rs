use std::path::PathBuf;

use super::super::ticket::ServicePrincipal;
use super::*;

fn account(keytab: PathBuf) -> Arc<TicketRequest> {
    let service = ServicePrincipal::new(None, "cm.example.com");
    Arc::new(TicketRequest { keytab, principal: None, service })
}

fn seconds(retryability: Retryability, attempts: usize) -> Vec<u64> {
    let mut backoff = RenewalBackoff::default();
    (0..attempts).map(|_| backoff.pause(retryability).as_secs()).collect()
}

#[test]
fn unavailable_kdc_backs_off_to_five_minutes() {
    assert_eq!(seconds(Retryability::Transient, 9), [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(seconds(Retryability::Transient, 1000).last(), Some(&300));
}

#[test]
fn wrong_keytab_key_stays_below_lockout_threshold() {
    let pauses = seconds(Retryability::Denied, 20);
    assert_eq!(pauses[..4], [60, 240, 900, 900]);
    let moments: Vec<u64> = pauses
        .iter()
        .scan(0, |at, pause| {
            let now = *at;
            *at += pause;
            Some(now)
        })
        .collect();
    let in_half_an_hour =
        |from: u64| moments.iter().filter(|&&at| at >= from && at < from + 1800).count();
    let most = moments.iter().map(|at| in_half_an_hour(*at)).max();
    assert_eq!(most, Some(4));
}

#[test]
fn renewal_backs_off_unless_keytab_changes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let keytab = FileVersion::of(file.path()).ok();
    let now = Instant::now();
    let error = Arc::new(KerberosError::library("gone"));
    let failure = Some(RenewalFailure { error, not_before: now + Duration::from_mins(1) });
    let state =
        TicketState { attempts: 1, last_failure: failure, keytab, ..TicketState::default() };
    assert!(!state.may_ask(keytab, now));
    assert!(state.may_ask(keytab, now + Duration::from_mins(1)));
    std::fs::write(file.path(), "other").unwrap();
    assert!(state.may_ask(FileVersion::of(file.path()).ok(), now));
    assert!(state.may_ask(None, now), "a keytab that is gone is another one too");
    assert!(!TicketState::default().is_new(keytab), "nothing was tried yet");
}

#[test]
fn a_401_is_a_reason_for_a_new_ticket_once_a_minute_and_never_to_try_a_wrong_key_again() {
    let limiter = RenewalLimiter::default();
    let now = Instant::now();
    let later = |seconds| now + Duration::from_secs(seconds);
    let error = Arc::new(KerberosError::library("gone"));
    let failure = Some(RenewalFailure { error, not_before: later(900) });
    let state = |attempts, failure| TicketState {
        attempts,
        last_failure: failure,
        ..TicketState::default()
    };
    assert!(limiter.may_renew(&state(1, None), None, now));
    assert!(limiter.may_renew(&state(1, None), None, later(1)), "it is under way");
    assert!(!limiter.may_renew(&state(2, None), None, later(59)));
    assert!(!limiter.may_renew(&state(2, failure.clone()), None, later(899)));
    assert!(limiter.may_renew(&state(2, failure), None, later(900)));
}

#[tokio::test]
async fn one_attempt_serves_all_earlier_requests() {
    let dir = tempfile::tempdir().unwrap();
    let renewals = TicketRenewer::start(account(dir.path().join("none"))).unwrap();
    let mut state = renewals.state();
    for _ in 0..5 {
        renewals.request_renewal(0);
    }
    state.wait_for(|state| state.attempts == 1).await.unwrap();
    renewals.request_renewal(1);
    state.wait_for(|state| state.attempts > 1).await.unwrap();
    assert_eq!(state.borrow().attempts, 2);
    let failure = state.borrow().last_failure.clone().unwrap().error.to_string();
    assert!(failure.contains("No such file"), "{failure}");
}

#[tokio::test]
async fn renewal_thread_ends_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let renewals = TicketRenewer::start(account(dir.path().join("none"))).unwrap();
    let mut state = renewals.state();
    renewals.request_renewal(0);
    state.wait_for(|state| state.attempts == 1).await.unwrap();
    drop(renewals);
    // The other end is gone when nothing comes any more.
    let ended = state.wait_for(|state| state.attempts > 1).await;
    assert!(ended.is_err());
}

#[test]
fn threads_are_counted_and_no_more_than_so_many() {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    let mut all: Vec<_> = (0..MAX_THREADS).map(|_| ThreadPermit::new(&THREADS).unwrap()).collect();
    let error = ThreadPermit::new(&THREADS).err().unwrap();
    assert_eq!(error.to_string(), "8 threads are blocked on unresponsive KDCs");
    all.pop();
    assert!(ThreadPermit::new(&THREADS).is_ok());
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn jobs_are_done_elsewhere_in_their_order() {
    let worker = TokenThread::start("test").unwrap();
    let name = || thread::current().name().map(str::to_owned);
    assert_eq!(worker.run(soon(), name).await, Ok(Some("test".to_owned())));
}

#[tokio::test]
async fn a_late_answer_is_not_waited_for_and_the_next_one_comes() {
    let worker = TokenThread::start("test").unwrap();
    let (go_on, wait) = mpsc::channel::<()>();
    let stuck = worker.run(tokio::time::Instant::now(), move || wait.recv().is_ok()).await;
    assert_eq!(stuck, Err(TokenTimeout));
    go_on.send(()).unwrap();
    assert_eq!(worker.run(soon(), || 7).await, Ok(7));
}

#[tokio::test]
async fn the_thread_ends_with_its_owner() {
    let worker = TokenThread::start("test").unwrap();
    let (alive, ended) = oneshot::channel::<()>();
    // The job is over, its capture is kept by the thread.
    thread_local!(static KEPT: std::cell::Cell<Option<oneshot::Sender<()>>> = const { std::cell::Cell::new(None) });
    worker.run(soon(), move || KEPT.set(Some(alive))).await.unwrap();
    drop(worker);
    assert!(timeout_at(soon(), ended).await.unwrap().is_err());
}
