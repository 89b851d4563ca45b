//! ATRs, as bytes and as text. The input is the ATR.

use cardbridge::card::{CompactTlv, DecodedAtr, InterfaceByte, hint};
use cardbridge::domain::{Atr, AtrPattern, Family};

/// Decodes the input as an ATR with every decoder.
pub fn check(data: &[u8]) {
    let atr = Atr::try_from(data);
    assert_eq!(atr.is_ok(), (2..=33).contains(&data.len()), "ISO 7816-3 says how long an ATR is");
    if let Ok(atr) = atr {
        let Some(after) = data.strip_prefix(atr.as_bytes()) else { panic!("not its bytes: {atr}") };
        assert!(data.len() == 33 || after.iter().all(|byte| *byte == 0), "{after:?} was cut off");
        assert_eq!(Atr::try_from(atr.as_bytes()).as_ref(), Ok(&atr), "nothing more is cut off");
        assert_eq!(atr.to_string().parse().as_ref(), Ok(&atr), "the text is the ATR");
        decoded(&atr);
    }
    if let Ok(text) = str::from_utf8(data) {
        from_text(text);
    }
}

fn from_text(text: &str) {
    if let Ok(atr) = text.parse::<Atr>() {
        assert!(text.to_ascii_lowercase().starts_with(&atr.to_string()));
        decoded(&atr);
        let same: Result<AtrPattern, _> = text.parse();
        assert!(same.is_ok_and(|pattern| pattern.matches(&atr)), "an ATR is a pattern of itself");
    }
    if let Ok(pattern) = text.parse::<AtrPattern>() {
        let zeros = pattern.as_str().replace('?', "0");
        let one = zeros.parse::<Atr>();
        // Zeros after the end of an ATR are cut off; other bytes in their place are not.
        let stands_for = |atr: &Atr| pattern.matches(atr) || atr.to_string().len() < zeros.len();
        assert!(one.is_ok_and(|atr| stands_for(&atr)), "{text:?} stands for no ATR");
    }
}

fn decoded(atr: &Atr) {
    let DecodedAtr { interface, protocols, historical, trailing_bytes: surplus, .. } =
        &DecodedAtr::of(atr);

    assert!(protocols.iter().all(|protocol| *protocol < 15), "{protocols:?}");
    let twice = |at: usize| protocols.iter().skip(at + 1).any(|p| Some(p) == protocols.get(at));
    assert!(!protocols.is_empty() && !(0..protocols.len()).any(twice), "{protocols:?}");

    assert!(interface.iter().map(InterfaceByte::meaning).all(|text| is_text(&text)));
    assert!(historical.bytes.len() <= 15);
    assert!(interface.len() + historical.bytes.len() + surplus + 2 <= atr.as_bytes().len());

    let entries: usize = historical.entries.iter().map(|entry| entry.value.len() + 1).sum();
    assert!(historical.entries.iter().all(|entry| entry.tag <= 15));
    assert!(entries + historical.leftover.len() <= historical.bytes.len(), "{historical:?}");
    assert!(
        historical.entries.iter().filter_map(CompactTlv::description).all(|text| is_text(&text))
    );
    assert!(historical.text().is_none_or(|text| is_text(&text)));
    assert!(DecodedAtr::of(atr).anomalies().iter().all(|odd| is_text(odd)));

    let known = hint(atr);
    assert!(known.is_none_or(|family| Family::ALL.contains(&family)));
}

/// One line that a terminal can be given.
fn is_text(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}
