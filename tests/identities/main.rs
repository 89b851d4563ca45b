//! Who a card is: every virtual card, asked without a reader, and cards that are made of generated
//! data. What CM may have under their ids, and which of them may act on it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says where it fails"
)]

mod generated;
mod mishaps;
mod together;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cardbridge::card::{CommandApdu, ProbeTarget, Protocol, Transmit, TransmitError, identify};
use cardbridge::domain::{
    Atr, Candidate, CardId, CardIdentity, CardRecord, CardStatus, CmEnums, CmRequest, Family,
    Inventory, LookupResult, ProbeSettings, RequestStatus, RequestType, Strength, Trigger,
};
use cardbridge::rules::{AtrMismatch, Evaluation, Pick, Rule, RuleInput, RuleSet, evaluate};
use cardbridge_harness::cards::{Card, load};

/// A card in no reader.
struct Unread {
    card: Box<dyn Card>,
    protocol: Protocol,
    sent: usize,
}

impl Unread {
    fn new(mut card: Box<dyn Card>) -> Self {
        card.power();
        let protocol = protocol(&card.atr());
        Self { card, protocol, sent: 0 }
    }
}

impl Transmit for Unread {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        self.sent += 1;
        Ok(self.card.command(&command.to_bytes(self.protocol)))
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }
}

/// The first protocol that an ATR offers (ISO 7816-3 section 8.2.3, TD1).
fn protocol(atr: &[u8]) -> Protocol {
    let y1 = atr[1] >> 4;
    let before = (y1 & 0x7).count_ones() as usize;
    match atr.get(2 + before) {
        Some(td1) if y1 & 0x8 != 0 && td1 & 0x0F == 1 => Protocol::T1,
        _ => Protocol::T0,
    }
}

/// Who the card of a file says that it is, or why it does not, under this ATR or its own; and how many
/// commands it got.
fn ask(file: &Path, atr: Option<&str>) -> (Atr, Result<CardIdentity, String>, usize) {
    let mut card = Unread::new(load(file).unwrap());
    let atr = atr.map_or_else(
        || Atr::try_from(card.card.atr().as_slice()).unwrap(),
        |atr| atr.parse().unwrap(),
    );
    let plan = ProbeSettings::default().plan(&atr);
    let subject = ProbeTarget { atr: &atr, plan: &plan, in_use: false };
    let identity = identify(&mut card, subject, &mut Inventory::default());
    // What it says of itself besides depends on the ATR, and finds no record.
    let identity = identity.map(|identity| identity.with_inventory(Inventory::default()));
    (atr, identity.map_err(|why| why.to_string()), card.sent)
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cards");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// An ATR that says nothing, and ATRs that look like each family and like single cards.
const ATRS: [&str; 9] = [
    "3b800181",
    "3b8d0180fba000000397425446590301c8",
    "3bda18ff81b1fe751f030031f573c001600090001c",
    "3bfd1300008131fe158073c021c057597562694b657940",
    "3b7f96000080318065b0850300ef120ffe829000",
    "3bf51800008131fe454d794549449a",
    "3bd218008131fe58c90217",
    "3b9f958131fe9f006646530510043171df000000000026",
    "3b8e800180fca000000063504b43532d313500",
];

#[test]
fn identity_and_strength_do_not_depend_on_atr() {
    let mut identified = 0;
    for file in files() {
        let (_, own, _) = ask(&file, None);
        identified += usize::from(own.is_ok());
        for atr in ATRS {
            assert_eq!(ask(&file, Some(atr)).1, own, "{} as {atr}", file.display());
        }
    }
    assert!(identified >= 35, "only {identified} cards are identified");
}

#[test]
fn command_count_stays_within_family_limit() {
    let mut table = String::new();
    for file in files() {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (_, identity, sent) = ask(&file, None);
        let family = identity.as_ref().map(|identity| identity.family);
        writeln!(table, "{sent:4}  {name}").unwrap();
        let most = match family {
            Ok(Family::Gids) => 16,
            Ok(Family::Idprime | Family::Piv) => 18,
            Ok(Family::Openpgp) => 20,
            Ok(Family::Pkcs15) => 40,
            Err(_) => 128,
        };
        assert!(sent <= most, "{name}: {sent} commands");
    }
    println!("{table}");
}

/// A record that CM has under an id.
fn record(card_id: CardId, atr: Option<&Atr>) -> CardRecord {
    CardRecord {
        id: "17cf063d-e337-4aa9-a822-346554ddd3c9".parse().unwrap(),
        status: CardStatus::new(2),
        serial_number: format!("{{{card_id}}}"),
        middleware: "MSBaseCSP".to_owned(),
        atr: atr.cloned(),
        raw: Box::default(),
    }
}

fn rules() -> RuleSet {
    RuleSet {
        rules: vec![Rule {
            name: "retire".to_owned(),
            on: Trigger::Inserted,
            request_types: vec![RequestType::new(7)],
            set_status: ("Retired".to_owned(), CardStatus::new(6)),
            card_status: vec![],
            reader_role: vec![],
            complete_request: false,
            pick: Pick::Oldest,
        }],
        atr_mismatch: AtrMismatch::Warn,
        numbers: CmEnums::default(),
    }
}

/// Whether a card retires this one record of CM's, which an approved request wants retired.
fn retires((atr, identity): (&Atr, &CardIdentity), record: &CardRecord) -> bool {
    let has = |id: &&Candidate| record.serial_number == format!("{{{}}}", id.card_id);
    let records = identity.candidates().find(has).map(|id| (id.clone(), vec![record.clone()]));
    let requests = records.is_some().then(|| CmRequest {
        id: "b105403d-d021-41ea-9f11-be3d677d229e".parse().unwrap(),
        request_type: RequestType::new(7),
        status: RequestStatus::new(3),
        old_card: Some(record.id),
        new_card: None,
        submitted: None,
    });
    let found = LookupResult { records, requests: requests.into_iter().collect() };
    let (trigger, role) = (Trigger::Inserted, "desk");
    let facts = RuleInput { trigger, role, atr: Some(atr), identity, found: &found };
    matches!(evaluate(&rules(), &facts), Evaluation::Set { .. })
}

fn share_a_unique_id(one: &CardIdentity, other: &CardIdentity) -> bool {
    let unique = |id: &&Candidate| id.strength == Strength::Unique;
    one.candidates()
        .filter(unique)
        .any(|id| other.candidates().filter(unique).any(|other| other.card_id == id.card_id))
}

/// Panics if both cards would retire one record.
fn assert_not_both(
    (one, other): ((&Atr, &CardIdentity), (&Atr, &CardIdentity)),
    same_serial: bool,
    what: &str,
) {
    if share_a_unique_id(one.1, other.1) {
        return;
    }
    let counts = |id: &&Candidate| !(same_serial && id.strength == Strength::Serial);
    for id in one.1.candidates().chain(other.1.candidates()).filter(counts) {
        for atr in [None, Some(one.0), Some(other.0)] {
            let record = record(id.card_id, atr);
            let both = retires(one, &record) && retires(other, &record);
            assert!(!both, "{what}: both act on {} by {}", id.card_id, id.rule);
        }
    }
}

#[test]
fn virtual_cards_share_record_only_by_unique_id() {
    let cards: Vec<_> = files()
        .into_iter()
        .filter_map(|file| {
            let (_, identity, _) = ask(&file, None);
            Some((file, identity.ok()?))
        })
        .collect();
    // The hardest case: all of them have one ATR.
    let atr: Atr = "3b800181".parse().unwrap();
    for (n, (file, one)) in cards.iter().enumerate() {
        for (other_file, other) in cards.iter().skip(n + 1) {
            // Files that are the same card answered differently.
            if one.family == other.family && one.serial == other.serial {
                continue;
            }
            let what = format!("{} and {}", file.display(), other_file.display());
            assert_not_both(((&atr, one), (&atr, other)), false, &what);
        }
    }
}
