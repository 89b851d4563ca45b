//! Cards to which something happens at one command or another.

use super::*;

/// What happens at a command.
#[derive(Debug, Clone)]
enum Mishap {
    Ends(TransmitError),
    Answers(Vec<u8>),
}

/// A card to which something happens at one command, or from there on.
struct Unlucky {
    card: Unread,
    at: usize,
    mishap: Mishap,
    lasts: bool,
    /// What it said of itself, and after how many commands.
    said: Vec<(usize, CardIdentity)>,
}

impl Transmit for Unlucky {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        let answer = self.card.transmit(command)?;
        let is_hit = self.card.sent == self.at || (self.lasts && self.card.sent > self.at);
        match &self.mishap {
            _ if !is_hit => Ok(answer),
            Mishap::Ends(why) => Err(why.clone()),
            Mishap::Answers(other) => Ok(other.clone()),
        }
    }

    fn protocol(&self) -> Protocol {
        self.card.protocol()
    }

    fn identified(&mut self, identity: &CardIdentity) {
        self.said.push((self.card.sent, identity.clone()));
    }
}

/// What a card says of itself to which this happens, and what it said before.
fn ask_unlucky(
    file: &Path,
    (at, mishap, lasts): (usize, &Mishap, bool),
) -> (Result<CardIdentity, String>, Vec<(usize, CardIdentity)>) {
    let card = Unread::new(load(file).unwrap());
    let atr = Atr::try_from(card.card.atr().as_slice()).unwrap();
    let plan = ProbeSettings::default().plan(&atr);
    let subject = ProbeTarget { atr: &atr, plan: &plan, in_use: false };
    let mut card = Unlucky { card, at, mishap: mishap.clone(), lasts, said: Vec::new() };
    let identity = identify(&mut card, subject, &mut Inventory::default());
    (identity.map_err(|why| why.to_string()), card.said)
}

fn mishaps() -> Vec<Mishap> {
    let failed = TransmitError::Failed { detail: "it failed".to_owned() };
    let ends = [
        TransmitError::Removed,
        TransmitError::Reset,
        TransmitError::PcscdLost,
        TransmitError::TimedOut,
    ];
    let answers: [&[u8]; 10] = [
        &[0x90, 0x00],
        &[0x6F, 0x00],
        &[0x69, 0x82],
        &[0x61, 0x00],
        &[0x61, 0x02],
        &[0x6C, 0x00],
        &[0x6C, 0x05],
        &[0x62, 0x82],
        &[0x90],
        &[],
    ];
    let long = [vec![0x5A; 254], vec![0x90, 0x00]].concat();
    let answers = answers.map(<[u8]>::to_vec).into_iter().chain([long]).map(Mishap::Answers);
    ends.into_iter().chain([failed]).map(Mishap::Ends).chain(answers).collect()
}

#[test]
fn identity_survives_later_failures() {
    let mut hits = 0;
    for file in files() {
        let (_, Ok(own), sent) = ask(&file, None) else { continue };
        let (_, said) = ask_unlucky(&file, (usize::MAX, &Mishap::Answers(Vec::new()), false));
        let (read, whole) = said.last().unwrap();
        assert_eq!(whole, &own, "{}", file.display());
        for at in 1..=sent {
            for (mishap, lasts) in mishaps().iter().flat_map(|it| [(it, false), (it, true)]) {
                let place = || format!("{} at {at} of {sent}: {mishap:?}", file.display());
                let (identity, said) = ask_unlucky(&file, (at, mishap, lasts));
                if at > *read {
                    hits += 1;
                    let identity = identity.map(|it| it.with_inventory(Inventory::default()));
                    assert_eq!(identity.as_ref(), Ok(&own), "{}", place());
                } else if matches!(mishap, Mishap::Ends(_)) {
                    assert!(identity.is_err(), "{}", place());
                    // What it said before is a part of the truth.
                    for (_, part) in said {
                        assert!(part.partial, "{}", place());
                        let is_own = |id: &Candidate| own.candidates().any(|its| its == id);
                        assert!(part.candidates().all(is_own), "{}", place());
                    }
                }
            }
        }
    }
    assert!(hits > 500, "only {hits} mishaps");
}
