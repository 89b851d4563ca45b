//! The fleet's time: one queue of what happens next, at whichever station.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use cardbridge::engine::Event;
use fastrand::Rng;

use super::cm::Cm;
use super::station::{Epoch, Station, policy};
use super::{Fleet, MINUTE};

/// CM is there for so long before it goes away: every station has talked to it.
const BEFORE: Duration = Duration::from_mins(30);

/// What a card costs CM, where all goes well: a look-up of three requests, and the PUT.
const REQUESTS_A_CARD: f64 = 4.0;

/// In what time the backlog is to be cleared, for the average that the peak is compared with.
const GOAL: Duration = Duration::from_mins(15);

/// What CM met when it was back.
#[derive(Debug)]
pub(crate) struct Report {
    /// Entries that waited at that moment.
    pub(crate) backlog: usize,
    /// The most requests in any second.
    peak: f64,
    /// When in the time after the return that second began.
    peak_at: Duration,
    /// After what time the last entry of the backlog had its outcome.
    pub(crate) cleared: Option<Duration>,
    /// The same for half of them.
    half: Option<Duration>,
}

impl Report {
    /// Requests a second that would clear the backlog in the time that is aimed at.
    fn average(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a count of cards")]
        let backlog = self.backlog as f64;
        backlog * REQUESTS_A_CARD / GOAL.as_secs_f64()
    }

    /// The peak as a multiple of that.
    pub(crate) fn peak_share(&self) -> f64 {
        self.peak / self.average()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
        write!(
            out,
            "backlog {} entries, average for 15 min {:.0}/s, peak {:.0}/s ({:.2} times) after {:.0} s, \
             half cleared after {:.0} s, all after {:.0} s",
            self.backlog,
            self.average(),
            self.peak,
            self.peak_share(),
            self.peak_at.as_secs_f64(),
            seconds(self.half),
            seconds(self.cleared),
        )
    }
}

enum What {
    Answer(Box<Event>),
    Card,
    Due,
}

struct World {
    epoch: Epoch,
    stations: Vec<Station>,
    cm: Cm,
    time: Duration,
    next: BTreeMap<(Duration, u64), (usize, What)>,
    sequence: u64,
    /// The timeouts that are in the queue already.
    due: Vec<Option<Duration>>,
    random: Rng,
    gap: Duration,
}

/// Plays the outage and the 45 minutes after it.
pub(crate) fn play(fleet: &Fleet) -> Report {
    let mut world = World::new(fleet);
    world.run(BEFORE);
    world.cm.away = true;
    world.run(BEFORE + fleet.outage);
    world.cm.away = false;
    world.cm.requests.clear();
    let back = world.time;
    let backlog: usize = world.stations.iter_mut().map(Station::mark_backlog).sum();
    let (mut half, mut cleared) = (None, None);
    while cleared.is_none() && world.time < back + 45 * MINUTE {
        world.run(world.time + Duration::from_secs(1));
        let left: usize = world.stations.iter().map(|station| station.backlog).sum();
        half = half.or((left <= backlog / 2).then_some(world.time.saturating_sub(back)));
        cleared = (left == 0).then_some(world.time.saturating_sub(back));
    }
    world.check();
    let second = fleet.second();
    let (most, peak_at) = busiest(&world.cm.requests, second);
    #[expect(clippy::cast_precision_loss, reason = "a count of requests")]
    let peak = most as f64 / second.as_secs_f64();
    Report { backlog, peak, peak_at: peak_at.saturating_sub(back), cleared, half }
}

impl World {
    fn new(fleet: &Fleet) -> Self {
        let epoch = Epoch(Instant::now());
        let policy = policy();
        let mut random = Rng::with_seed(fleet.seed);
        let station =
            |number| Station::new(number, &policy, random.u64(..), epoch.at(Duration::ZERO));
        let stations: Vec<_> = (0..fleet.stations).map(station).collect();
        let mut world = Self {
            epoch,
            due: vec![None; stations.len()],
            stations,
            cm: Cm::default(),
            time: Duration::ZERO,
            next: BTreeMap::new(),
            sequence: 0,
            random,
            gap: Duration::from_secs_f64(3600.0 / fleet.cards_an_hour),
        };
        for station in 0..fleet.stations {
            world.next_card(station);
        }
        world
    }

    fn post(&mut self, after: Duration, station: usize, what: What) {
        self.sequence += 1;
        self.next.insert((self.time + after, self.sequence), (station, what));
    }

    /// People come independently of each other.
    fn next_card(&mut self, station: usize) {
        let wait = -(1.0 - self.random.f64()).ln();
        self.post(self.gap.mul_f64(wait), station, What::Card);
    }

    fn run(&mut self, end: Duration) {
        while let Some(entry) = self.next.first_entry() {
            let (time, _) = *entry.key();
            if time > end {
                break;
            }
            let (station, what) = entry.remove();
            self.time = time;
            self.happen(station, what);
        }
        self.time = end;
    }

    fn happen(&mut self, number: usize, what: What) {
        let now = self.epoch.at(self.time);
        match what {
            What::Answer(event) => self.stations[number].engine.handle(*event, now),
            What::Card => {
                self.stations[number].insert(now);
                self.next_card(number);
            }
            What::Due => {
                self.due[number] = None;
                self.stations[number].engine.handle_timeout(now);
            }
        }
        for (after, event) in self.stations[number].perform(&mut self.cm, self.time) {
            self.post(after, number, What::Answer(Box::new(event)));
        }
        self.wake(number);
    }

    fn wake(&mut self, number: usize) {
        let Some(due) = self.stations[number].engine.poll_timeout() else { return };
        let due = due.saturating_duration_since(self.epoch.0).max(self.time);
        if self.due[number].is_none_or(|known| due < known) {
            self.due[number] = Some(due);
            self.post(due.saturating_sub(self.time), number, What::Due);
        }
    }

    /// Every outcome is the one that CM's knowledge makes, once.
    fn check(&self) {
        for station in &self.stations {
            let mut ids: Vec<_> = station.settled.iter().map(|(id, _)| *id).collect();
            assert!(station.settled.iter().all(|(_, outcome)| outcome == "updated"));
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "an entry is settled twice");
        }
    }
}

/// The most arrivals in any time so long, and when that time began.
fn busiest(arrivals: &[Duration], second: Duration) -> (usize, Duration) {
    let mut busiest = (0, Duration::ZERO);
    let mut first = 0;
    for (last, at) in arrivals.iter().enumerate() {
        while at.saturating_sub(arrivals[first]) >= second {
            first += 1;
        }
        if last + 1 - first > busiest.0 {
            busiest = (last + 1 - first, arrivals[first]);
        }
    }
    busiest
}

#[test]
fn busiest_second_is_found_at_any_offset() {
    let at = |millis: &[u64]| millis.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
    assert_eq!(busiest(&at(&[]), Duration::from_secs(1)), (0, Duration::ZERO));
    let arrivals = at(&[0, 600, 900, 1500, 1599, 1600, 5000]);
    assert_eq!(busiest(&arrivals, Duration::from_secs(1)), (4, Duration::from_millis(600)));
}
