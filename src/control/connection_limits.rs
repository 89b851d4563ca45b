//! Keeps whoever connects from taking the daemon's descriptors away from its cards, and from keeping
//! others out: so many connections at a time for each class of callers and for each user, each for
//! so long. Where there is no room, the newest takes the place of the oldest that has not asked
//! anything yet: one that asks at once is answered whoever else holds connections.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Who connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClientClass {
    /// Root, or the daemon's own user.
    Trusted,
    /// A user who may look or act.
    Member,
    /// A user who may do nothing: there only to be refused.
    Stranger,
    /// Somebody on the port for monitoring.
    Port,
}

/// What a class may have.
struct ClassLimits {
    connections: usize,
    per_user: usize,
    lifetime: Duration,
}

impl ClientClass {
    const fn limits(self) -> ClassLimits {
        match self {
            Self::Trusted => ClassLimits { connections: 32, per_user: 16, lifetime: LIFETIME },
            Self::Member => ClassLimits { connections: 48, per_user: 8, lifetime: LIFETIME },
            Self::Stranger => {
                ClassLimits { connections: 16, per_user: 4, lifetime: Duration::from_secs(1) }
            }
            Self::Port => ClassLimits { connections: 32, per_user: 32, lifetime: LIFETIME },
        }
    }
}

/// How long a connection may last: longer than the longest answer takes.
const LIFETIME: Duration = Duration::from_secs(4);

/// How long one that asked is sure of its place.
const GRACE: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct HeldConnection {
    uid: u32,
    since: Instant,
    has_requested: bool,
    end: Arc<Notify>,
}

impl HeldConnection {
    fn may_be_ended(&self, now: Instant) -> bool {
        !self.has_requested || now.duration_since(self.since) >= GRACE
    }
}

#[derive(Debug, Default)]
struct ConnectionPools {
    last: u64,
    /// By class, the oldest first.
    held: BTreeMap<(ClientClass, u64), HeldConnection>,
}

/// All connections that there are.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionLimits {
    pools: Arc<Mutex<ConnectionPools>>,
}

/// A connection's place; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    gate: ConnectionLimits,
    key: (ClientClass, u64),
    end: Arc<Notify>,
}

impl ConnectionLimits {
    /// A place for a new connection of this user, or none where the connection has to be closed.
    pub(super) fn admit(&self, class: ClientClass, uid: u32) -> Option<ConnectionPermit> {
        let limits = class.limits();
        let now = Instant::now();
        let mut pools = self.lock();
        let of_class: Vec<_> = pools.of(class).map(|held| held.uid).collect();
        let of_user = of_class.iter().filter(|held| **held == uid).count();
        if of_user >= limits.per_user {
            pools.end_oldest(class, uid, now)?;
        } else if of_class.len() >= limits.connections {
            pools.end_oldest(class, most_frequent(&of_class)?, now)?;
        }
        pools.last += 1;
        let key = (class, pools.last);
        let end = Arc::new(Notify::new());
        let held = HeldConnection { uid, since: now, has_requested: false, end: Arc::clone(&end) };
        pools.held.insert(key, held);
        Some(ConnectionPermit { gate: self.clone(), key, end })
    }

    fn lock(&self) -> MutexGuard<'_, ConnectionPools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPools {
    fn of(&self, class: ClientClass) -> impl Iterator<Item = &HeldConnection> {
        self.held.range((class, 0)..=(class, u64::MAX)).map(|(_, held)| held)
    }

    /// Ends the user's oldest connection that may go.
    fn end_oldest(&mut self, class: ClientClass, uid: u32, now: Instant) -> Option<()> {
        let mut of_class = self.held.range((class, 0)..=(class, u64::MAX));
        let (key, _) = of_class.find(|(_, held)| held.uid == uid && held.may_be_ended(now))?;
        let key = *key;
        self.held.remove(&key)?.end.notify_one();
        Some(())
    }
}

fn most_frequent(users: &[u32]) -> Option<u32> {
    let mut counts = BTreeMap::<u32, usize>::new();
    for uid in users {
        *counts.entry(*uid).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(uid, _)| uid)
}

impl ConnectionPermit {
    /// The connection asked something: from here on it gives its place to others later.
    pub(super) fn on_request(&self) {
        if let Some(held) = self.gate.lock().held.get_mut(&self.key) {
            held.has_requested = true;
        }
    }

    /// Comes back when the connection has to end.
    pub(super) async fn over(&self) {
        let lifetime = self.key.0.limits().lifetime;
        drop(tokio::time::timeout(lifetime, self.end.notified()).await);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.gate.lock().held.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: [ClientClass; 4] =
        [ClientClass::Trusted, ClientClass::Member, ClientClass::Stranger, ClientClass::Port];

    async fn is_over(place: &ConnectionPermit) -> bool {
        tokio::time::timeout(Duration::ZERO, place.over()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn newest_is_admitted_in_place_of_the_oldest_that_is_silent() {
        for class in CLASSES {
            let gate = ConnectionLimits::default();
            let limits = class.limits();
            let mut places = Vec::new();
            for _ in 0..1000 {
                places.push(gate.admit(class, 7).unwrap());
            }
            let over = places.len() - limits.per_user;
            assert!(is_over(&places[over - 1]).await && !is_over(&places[over]).await, "{class:?}");
            let newest = places.pop().unwrap();
            newest.on_request();
            for _ in 0..1000 {
                places.push(gate.admit(class, 7).unwrap());
                assert!(gate.lock().held.len() <= limits.per_user, "{class:?}");
            }
            assert!(!is_over(&newest).await, "one that asked is answered: {class:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_keeps_no_other_out_and_no_class_another() {
        let gate = ConnectionLimits::default();
        let mut places = Vec::new();
        for class in [ClientClass::Member, ClientClass::Stranger] {
            for uid in 0..1000 {
                places.push(gate.admit(class, uid).unwrap());
                places.push(gate.admit(class, 5000).unwrap());
            }
        }
        let newest = gate.admit(ClientClass::Member, 9).unwrap();
        assert!(!is_over(&newest).await);
        let most = |class: ClientClass| class.limits().connections;
        assert!(gate.lock().held.len() <= most(ClientClass::Member) + most(ClientClass::Stranger));
        let total: usize = CLASSES.map(most).iter().sum();
        assert!(total <= 128, "{total} descriptors");
    }

    #[tokio::test(start_paused = true)]
    async fn place_ends_with_its_time_and_one_that_lingers_gives_way() {
        let gate = ConnectionLimits::default();
        let slow: Vec<_> = (0..8).map(|_| gate.admit(ClientClass::Member, 7).unwrap()).collect();
        slow.iter().for_each(ConnectionPermit::on_request);
        assert!(gate.admit(ClientClass::Member, 7).is_none(), "all are being answered");
        tokio::time::advance(GRACE).await;
        let newest = gate.admit(ClientClass::Member, 7).unwrap();
        assert!(is_over(&slow[0]).await && !is_over(&slow[1]).await);
        tokio::time::timeout(LIFETIME * 2, newest.over()).await.unwrap();
        drop((slow, newest));
        assert!(gate.lock().held.is_empty());
    }
}
