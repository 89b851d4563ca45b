//! What is wrong with CM, by chance.

use cardbridge_harness::cm::{Cm, Fault};
use fastrand::Rng;
use uuid::Uuid;

/// CM's state of health.
#[derive(Default)]
pub(super) struct Weather {
    away: bool,
}

impl Weather {
    /// Everything is as it should be.
    pub(super) fn clear(&mut self, cm: &Cm) {
        cm.clear_faults();
        if std::mem::take(&mut self.away) {
            cm.come_back().unwrap();
        }
    }

    /// Something else is wrong from here on, or nothing.
    pub(super) fn change(&mut self, cm: &Cm, random: &mut Rng) {
        if random.u8(..3) == 0 {
            return self.clear(cm);
        }
        if random.u8(..6) == 0 {
            if !std::mem::replace(&mut self.away, true) {
                cm.go_away().unwrap();
            }
            return;
        }
        cm.set_fault(trouble(random));
    }
}

fn trouble(random: &mut Rng) -> cardbridge_harness::cm::FaultRule {
    let correlation = Uuid::from_u128(random.u128(..));
    let retry_after = random.bool().then_some(1);
    let (fault, of_put) = match random.u8(..10) {
        0 => (Fault::Slow { ms: random.u64(20..400) }, random.bool()),
        1 => (Fault::Slow { ms: random.u64(100..900) }, true),
        2 => (Fault::ServerError { correlation }, random.bool()),
        3 => (Fault::ServerErrorAfter { correlation }, true),
        4 => (Fault::AnswerLost, true),
        5 => (Fault::AnswerLost, random.bool()),
        6 => (Fault::TooManyRequests { retry_after }, random.bool()),
        7 => (Fault::Unavailable { retry_after }, random.bool()),
        8 => (Fault::CutInBody, true),
        _ => (Fault::Reset, random.bool()),
    };
    let rule = fault.times(random.u32(1..6));
    if of_put { rule.method("PUT") } else { rule }
}
