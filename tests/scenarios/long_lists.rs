//! Lists of open requests as long as those of a site where none is completed.

use std::io::Write as _;

use cardbridge_harness::cards::GidsCard;

use super::*;

/// How many requests are open in each of the two lists, unless `LIST_REQUESTS` says otherwise:
/// `tests/measure lists` has 200,000, which the simulator needs a minute for.
const MANY: u32 = 40_000;

/// How much more memory the daemon may take for them, in KiB.
const BOUND: u64 = 16 << 10;

/// A figure of the daemon's memory, in KiB.
fn memory(world: &World, name: &str) -> u64 {
    let status = format!("/proc/{}/status", world.daemon_pid().unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse().unwrap()
}

#[test]
fn long_request_lists_use_constant_memory() {
    let world = require!(world());
    let many = std::env::var("LIST_REQUESTS").map_or(MANY, |many| many.parse().unwrap());
    let mut store = Store::seed();
    for number in 0..2 * many {
        let another = Record { uuid: Uuid::from_u128(u128::from(number) + 1), ..Record::seed() };
        let mut request = Request::approved(RETIRE, &another);
        if number % 2 == 0 {
            request.status = EXECUTING;
        }
        store.requests.push(request);
    }
    let cm = CmOptions { store, ..CmOptions::default() };
    let world = world.cm(cm).config_set("cm.timeout", "\"5m\"").start().unwrap();
    let before = memory(&world, "VmRSS");
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let outcomes = world.wait_for_outcomes(1, 10 * LONG).unwrap();
    assert_eq!(outcomes, ["updated"]);
    let more = memory(&world, "VmHWM").saturating_sub(before);
    let figure =
        format!("lists: {more} KiB more than {before} KiB, with {many} requests in each of two");
    writeln!(std::io::stderr(), "{figure}").unwrap();
    assert!(more < BOUND, "{more} KiB more than {before} KiB");
    world.finish().unwrap();
}
