//! Interface bytes in words (ISO 7816-3:2006 sections 8.3, 10.2 and 11.4).

use super::interface::{ByteRole, InterfaceByte};

/// Clock cycles per bit and the highest clock in tenths of a MHz, by the high half of TA1.
const FI: [Option<(u32, u32)>; 16] = [
    Some((372, 40)),
    Some((372, 50)),
    Some((558, 60)),
    Some((744, 80)),
    Some((1116, 120)),
    Some((1488, 160)),
    Some((1860, 200)),
    None,
    None,
    Some((512, 50)),
    Some((768, 75)),
    Some((1024, 100)),
    Some((1536, 150)),
    Some((2048, 200)),
    None,
    None,
];

/// What these are divided by, by the low half of TA1.
const DI: [Option<u32>; 16] = [
    None,
    Some(1),
    Some(2),
    Some(4),
    Some(8),
    Some(16),
    Some(32),
    Some(64),
    Some(12),
    Some(20),
    None,
    None,
    None,
    None,
    None,
    None,
];

impl InterfaceByte {
    /// What the byte says, for people.
    #[must_use]
    pub fn meaning(&self) -> String {
        let value = self.value;
        match self.role {
            ByteRole::Speed => speed(value),
            ByteRole::Voltage => "programming voltage, to be ignored".to_owned(),
            ByteRole::GuardTime => guard_time(value),
            ByteRole::Protocol => protocol(value),
            ByteRole::SpecificMode => specific_mode(value),
            ByteRole::WaitingTime => format!("T=0: waiting time {value}"),
            ByteRole::BlockSize => format!("T=1: the card takes {value} bytes a block"),
            ByteRole::BlockWaitingTime => {
                format!(
                    "T=1: block waiting time {}, byte waiting time {}",
                    value >> 4,
                    value & 0x0F
                )
            }
            ByteRole::BlockCheck => {
                format!("T=1: blocks end in {}", if value & 1 == 0 { "an LRC" } else { "a CRC" })
            }
            ByteRole::ClockAndClass => clock_and_class(value),
            ByteRole::SpareContact => spare_contact(value),
            ByteRole::Reserved(protocol) => format!("reserved for T={protocol}"),
        }
    }
}

fn speed(value: u8) -> String {
    let fi = FI.get(usize::from(value >> 4)).copied().flatten();
    let di = DI.get(usize::from(value & 0x0F)).copied().flatten();
    match (fi, di) {
        (Some((fi, tenths)), Some(di)) => {
            let (mhz, tenth) = (tenths / 10, tenths % 10);
            let clock = if tenth == 0 { mhz.to_string() } else { format!("{mhz}.{tenth}") };
            let bits = u64::from(tenths) * 100_000 * u64::from(di) / u64::from(fi);
            format!("Fi {fi}, Di {di}, up to {clock} MHz: at most {bits} bit/s")
        }
        (fi, di) => {
            let fi = fi.map_or("reserved".to_owned(), |(fi, _)| fi.to_string());
            let di = di.map_or("reserved".to_owned(), |di| di.to_string());
            format!("Fi {fi}, Di {di}")
        }
    }
}

fn guard_time(value: u8) -> String {
    match value {
        0 => "no extra guard time".to_owned(),
        255 => "the least guard time of the protocol".to_owned(),
        n => format!("extra guard time of {n} bits"),
    }
}

fn protocol(value: u8) -> String {
    match value & 0x0F {
        15 => "T=15: global bytes follow".to_owned(),
        protocol @ 0..=1 => format!("T={protocol}"),
        protocol => format!("T={protocol}, not of ISO 7816"),
    }
}

fn specific_mode(value: u8) -> String {
    let change = if value & 0x80 == 0 { "may change" } else { "cannot change" };
    let by = if value & 0x10 == 0 { "as the interface bytes say" } else { "as both sides know" };
    format!("specific mode: T={} only, {by}, {change}", value & 0x0F)
}

fn clock_and_class(value: u8) -> String {
    let stop = ["never", "low only", "high only", "either way"];
    let stop = stop.get(usize::from(value >> 6)).copied().unwrap_or_default();
    let classes = [(0x01, "5 V"), (0x02, "3 V"), (0x04, "1.8 V")];
    let taken: Vec<_> =
        classes.iter().filter(|(bit, _)| value & bit != 0).map(|(_, volts)| *volts).collect();
    let taken = if taken.is_empty() { "unknown".to_owned() } else { taken.join(", ") };
    format!("clock may stop: {stop}; voltages: {taken}")
}

fn spare_contact(value: u8) -> String {
    match (value & 0x80, value & 0x7F) {
        (0, 0) => "contact C6 not used".to_owned(),
        (0, _) => "contact C6 used as the standard says".to_owned(),
        _ => "contact C6 used in the maker's way".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::Letter;
    use super::*;

    fn words(role: ByteRole, value: u8) -> String {
        InterfaceByte { letter: Letter::A, number: 1, value, role }.meaning()
    }

    #[test]
    fn ta1_tells_the_fastest_that_the_card_goes() {
        assert_eq!(words(ByteRole::Speed, 0x11), "Fi 372, Di 1, up to 5 MHz: at most 13440 bit/s");
        assert_eq!(
            words(ByteRole::Speed, 0x96),
            "Fi 512, Di 32, up to 5 MHz: at most 312500 bit/s"
        );
        assert_eq!(
            words(ByteRole::Speed, 0xA8),
            "Fi 768, Di 12, up to 7.5 MHz: at most 117187 bit/s"
        );
        assert_eq!(words(ByteRole::Speed, 0x7F), "Fi reserved, Di reserved");
    }

    #[test]
    fn the_ends_of_the_guard_time_are_words() {
        assert_eq!(words(ByteRole::GuardTime, 0), "no extra guard time");
        assert_eq!(words(ByteRole::GuardTime, 2), "extra guard time of 2 bits");
        assert_eq!(words(ByteRole::GuardTime, 255), "the least guard time of the protocol");
    }

    #[test]
    fn specific_mode_names_the_only_protocol() {
        assert_eq!(
            words(ByteRole::SpecificMode, 0x81),
            "specific mode: T=1 only, as the interface bytes say, cannot change"
        );
    }

    #[test]
    fn clock_stop_and_voltages_are_told_apart() {
        assert_eq!(
            words(ByteRole::ClockAndClass, 0xC3),
            "clock may stop: either way; voltages: 5 V, 3 V"
        );
        assert_eq!(
            words(ByteRole::ClockAndClass, 0x00),
            "clock may stop: never; voltages: unknown"
        );
    }

    #[test]
    fn what_t1_says_of_its_blocks_is_told() {
        assert_eq!(words(ByteRole::BlockSize, 0xFE), "T=1: the card takes 254 bytes a block");
        assert_eq!(
            words(ByteRole::BlockWaitingTime, 0x45),
            "T=1: block waiting time 4, byte waiting time 5"
        );
        assert_eq!(words(ByteRole::BlockCheck, 1), "T=1: blocks end in a CRC");
    }
}
