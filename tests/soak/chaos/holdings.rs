//! What the daemon holds of the machine, as the kernel counts it.

use std::collections::BTreeSet;
use std::{fmt, fs};

use cardbridge_harness::world::World;

use super::LONG;

/// How much more memory may be resident after a round than after the first, in KiB: what the
/// allocator makes of the same work in another order.
const NOISE: u64 = 2048;

/// The engine's, the outbox's, that of HTTP, and the one that watches the readers.
const THREADS: usize = 4;

/// Threads, descriptors and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holdings {
    threads: usize,
    /// But for connections to CM, which close by themselves.
    descriptors: Vec<String>,
    resident: u64,
    anonymous: u64,
}

impl Holdings {
    /// Once the daemon has let go of what it is about to let go of, which is at most what it had
    /// before.
    pub(super) fn at_rest(world: &World, before: Option<&Self>) -> Self {
        let mut now = Self::of(world);
        let calm = || {
            let last = std::mem::replace(&mut now, Self::of(world));
            match before {
                Some(before) => {
                    now.threads <= before.threads
                        && now.descriptors.len() <= before.descriptors.len()
                }
                None => now.threads <= THREADS && now.descriptors.len() == last.descriptors.len(),
            }
        };
        let waited = world.wait_until("the daemon to hold no more than before", LONG, calm);
        waited.unwrap_or_else(|error| panic!("{error}: {now:?}, before: {before:?}"));
        now
    }

    fn of(world: &World) -> Self {
        let pid = world.daemon_pid().unwrap();
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let status = read("status");
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let to_cm = connections(&read("net/tcp"), world.cm.address().port());
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = files.map(|file| {
            let target = fs::read_link(file.unwrap().path()).unwrap_or_default();
            target.to_string_lossy().into_owned()
        });
        Self {
            threads: fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(),
            descriptors: targets.filter(|target| !to_cm.contains(target)).collect(),
            resident: kib("VmRSS"),
            anonymous: kib("RssAnon"),
        }
    }

    /// What there is more of, if anything.
    pub(super) fn grown_since(&self, before: &Self) -> Option<&'static str> {
        if self.threads > before.threads {
            return Some("threads");
        }
        if self.descriptors.len() > before.descriptors.len() {
            return Some("descriptors");
        }
        (self.anonymous > before.anonymous + NOISE).then_some("memory")
    }
}

/// The sockets that are connected to this port, as links in `/proc` name them.
fn connections(table: &str, port: u16) -> BTreeSet<String> {
    let remote = format!(":{port:04X}");
    let socket = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let to_cm = columns.get(2)?.ends_with(&remote);
        to_cm.then_some(format!("socket:[{}]", columns.get(9)?))
    };
    table.lines().filter_map(socket).collect()
}

impl fmt::Display for Holdings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { threads, descriptors, resident, anonymous } = self;
        let descriptors = descriptors.len();
        write!(
            out,
            "{threads} threads, {descriptors} descriptors, {resident} KiB resident, {anonymous} KiB of them its own"
        )
    }
}
