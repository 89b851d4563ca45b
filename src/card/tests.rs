//! Cards of several families, of none, and hostile ones.

pub(super) mod script;

use proptest::prelude::*;

use super::*;
use script::{CARDID, GIDS_SELECTED, GIDS_TABLE, Hostile, Script, atr};

const CHUID_READ: &str = "00cb3fff055c035fc10200";
const PIV_SELECT: &str = "00a4040009a0000003080000100000";
const GUID: &str = "a04f5343731001f9aa6e34537bee6fc1";

fn plan(families: &[Family]) -> ProbePlan {
    ProbePlan { families: families.to_vec(), id_rule: None, inventory: true }
}

fn ask_as(
    card: &mut dyn Transmit,
    plan: &ProbePlan,
    in_use: bool,
) -> (Result<CardIdentity, ProbeError>, Inventory) {
    let mut inventory = Inventory::default();
    let subject = ProbeTarget { atr: &atr(), plan, in_use };
    let result = identify(card, subject, &mut inventory);
    (result, inventory)
}

fn identify_as(card: &mut dyn Transmit, families: &[Family]) -> Result<CardIdentity, ProbeError> {
    ask_as(card, &plan(families), false).0
}

/// A card that has a PIV application besides whatever else it has.
fn with_piv(card: Script) -> Script {
    card.on(PIV_SELECT, "61114f0600001000010079074f05a0000003089000")
        .on(CHUID_READ, &format!("53123410{GUID}9000"))
}

#[test]
fn unknown_card_reports_result_of_each_family() {
    let mut card = Script::new(Protocol::T1);
    let error = identify_as(&mut card, &[Family::Gids, Family::Pkcs15]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no enabled card family recognised the card (gids: card returned status 6A82 (absent); pkcs15: card has no \
         EF.TokenInfo)"
    );
}

#[test]
fn unknown_card_gets_at_most_22_commands() {
    let mut card = Script::new(Protocol::T1);
    identify_as(&mut card, &Family::ALL).unwrap_err();
    assert!(card.sent().len() <= 22, "{:?}", card.sent());
}

#[test]
fn gids_card_gets_three_commands_and_inventory() {
    let mut card = Script::gids(Protocol::T1);
    let identity = identify_as(&mut card, &[Family::Gids]).unwrap();
    assert_eq!(identity.serial.to_string(), CARDID);
    let select = "00a4040009a0000003974254465900";
    assert_eq!(
        card.sent(),
        [select, "00cba000045c02df1f00", "00cba012045c02df2000", "00a4040008a00000015100000000",]
    );
}

#[test]
fn select_with_only_a_warning_selects() {
    let gids = Script::gids(Protocol::T1).on("00a4040009a0000003974254465900", "6282");
    let piv = with_piv(Script::new(Protocol::T1)).on(PIV_SELECT, "6282");
    let openpgp = with_openpgp(Script::new(Protocol::T1), "000612345678")
        .on("00a4040006d2760001240100", "6282");
    for (mut card, family) in [(gids, Family::Gids), (piv, Family::Piv), (openpgp, Family::Openpgp)]
    {
        assert_eq!(identify_as(&mut card, &Family::ALL).unwrap().family, family);
    }
}

#[test]
fn application_is_selected_without_response_data_if_needed() {
    for refusal in ["6a86", "6b00"] {
        let gids = Script::gids(Protocol::T1)
            .on("00a4040009a0000003974254465900", refusal)
            .on("00a4040c09a00000039742544659", "9000");
        let piv = with_piv(Script::new(Protocol::T1))
            .on(PIV_SELECT, refusal)
            .on("00a4040c09a00000030800001000", "9000");
        let openpgp = with_openpgp(Script::new(Protocol::T1), "000612345678")
            .on("00a4040006d2760001240100", refusal)
            .on("00a4040c06d27600012401", "9000");
        for (mut card, family) in
            [(gids, Family::Gids), (piv, Family::Piv), (openpgp, Family::Openpgp)]
        {
            let identity = identify_as(&mut card, &Family::ALL);
            assert_eq!(identity.unwrap().family, family, "{refusal}");
        }
    }
}

#[test]
fn identified_application_is_selected_again() {
    let select = "00a4040009a0000003974254465900";
    let mut card = Script::gids(Protocol::T1).on("00a4040008a00000015100000000", "9000");
    identify_as(&mut card, &[Family::Gids]).unwrap();
    assert_eq!(card.sent().last().unwrap(), select);
    let mut both = with_piv(Script::gids(Protocol::T1));
    identify_as(&mut both, &[Family::Gids, Family::Piv]).unwrap();
    assert_eq!(both.sent().last().unwrap(), select);
}

#[test]
fn only_instructions_that_read_exist() {
    let source = include_str!("apdu.rs");
    let (_, list) = source.split_once("enum Instruction {").unwrap();
    let (list, _) = list.split_once('}').unwrap();
    let bytes: Vec<_> = list.split("= 0x").skip(1).map(|rest| rest.split_at(2).0).collect();
    // SELECT, READ BINARY, READ RECORD, GET RESPONSE, GET DATA, and Yubico's two reads.
    assert_eq!(bytes, ["A4", "B0", "B2", "C0", "CA", "CB", "1D", "F8"]);
    assert_eq!(source.matches("enum Instruction").count(), 1);
}

#[test]
fn interruption_ends_probe() {
    for cause in [
        TransmitError::Removed,
        TransmitError::Reset,
        TransmitError::PcscdLost,
        TransmitError::TimedOut,
        TransmitError::Failed { detail: "broken".to_owned() },
    ] {
        let mut card = Script::new(Protocol::T1).interrupted_after(0, cause.clone());
        let error = identify_as(&mut card, &Family::ALL).unwrap_err();
        assert_eq!(error, ProbeError::Interrupted(cause));
        assert_eq!(card.sent().len(), 1);
    }
}

/// A card, and what it was taken for at the moment at which it had said who it is.
struct Witness<'a> {
    card: &'a mut dyn Transmit,
    identities: Vec<CardIdentity>,
}

impl Transmit for Witness<'_> {
    fn transmit(&mut self, command: &CommandApdu) -> Result<Vec<u8>, TransmitError> {
        self.card.transmit(command)
    }

    fn protocol(&self) -> Protocol {
        self.card.protocol()
    }

    fn identified(&mut self, identity: &CardIdentity) {
        self.identities.push(identity.clone());
    }
}

const INTERRUPTIONS: [TransmitError; 4] = [
    TransmitError::Removed,
    TransmitError::Reset,
    TransmitError::PcscdLost,
    TransmitError::TimedOut,
];

/// Cards of each kind whose inventory takes commands: how many belong to the id.
#[test]
fn card_lost_after_its_ids_is_identified() {
    let gids = |n, cause| Script::gids(Protocol::T1).interrupted_after(n, cause);
    let piv = |n, cause| with_piv(Script::new(Protocol::T1)).interrupted_after(n, cause);
    let both = |n, cause| with_piv(Script::gids(Protocol::T1)).interrupted_after(n, cause);
    for cause in INTERRUPTIONS {
        for (mut card, families, ids) in [
            (gids(3, cause.clone()), vec![Family::Gids], 2),
            (piv(2, cause.clone()), vec![Family::Piv], 3),
            (piv(3, cause.clone()), vec![Family::Piv], 3),
            (both(5, cause.clone()), vec![Family::Gids, Family::Piv], 5),
            (both(6, cause.clone()), vec![Family::Gids, Family::Piv], 5),
        ] {
            let mut witness = Witness { card: &mut card, identities: Vec::new() };
            let identity = identify_as(&mut witness, &families).unwrap();
            assert_eq!(identity.candidates().count(), ids, "{families:?} {cause:?}");
            assert_eq!(witness.identities.last(), Some(&identity), "{families:?} {cause:?}");
        }
        let mut half = both(3, cause.clone());
        let mut witness = Witness { card: &mut half, identities: Vec::new() };
        assert_eq!(
            identify_as(&mut witness, &[Family::Gids, Family::Piv]),
            Err(cause.clone().into()),
            "asked again, it may say all"
        );
        let seen: Vec<_> =
            witness.identities.iter().map(|identity| (identity.family, identity.partial)).collect();
        assert_eq!(seen, [(Family::Gids, true)], "what it said counts until then");
        let mut early = gids(2, cause.clone());
        let mut witness = Witness { card: &mut early, identities: Vec::new() };
        assert_eq!(identify_as(&mut witness, &[Family::Gids]), Err(cause.into()));
        assert_eq!(witness.identities, []);
    }
}

#[test]
fn unknown_card_reset_during_inventory_is_interrupted() {
    for cause in [TransmitError::Removed, TransmitError::Reset, TransmitError::PcscdLost] {
        let mut card = Script::new(Protocol::T1).interrupted_after(1, cause.clone());
        assert_eq!(identify_as(&mut card, &[Family::Gids]), Err(cause.into()));
    }
}

#[test]
fn disabled_inventory_is_not_read() {
    let run = |inventory, families: &[Family]| {
        let mut card =
            with_piv(Script::gids(Protocol::T1)).on("00a4040008a00000015100000000", "9000");
        let plan = ProbePlan { inventory, ..plan(families) };
        let (identity, _) = ask_as(&mut card, &plan, false);
        (identity.unwrap().candidates().cloned().collect::<Vec<_>>(), card.sent().clone())
    };
    for families in [&[Family::Gids][..], &[Family::Piv], &[Family::Gids, Family::Piv]] {
        let (ids, sent) = run(false, families);
        let (same_ids, more) = run(true, families);
        assert_eq!(ids, same_ids);
        assert!(sent.len() < more.len(), "{sent:?}");
        for command in ["00cb3fff055c035fc10700", "00a4040008a00000015100000000"] {
            assert!(!sent.iter().any(|sent| sent == command), "{sent:?}");
        }
    }
    let (_, sent) = run(false, &[Family::Gids, Family::Piv]);
    assert_eq!(sent.last().unwrap(), "00a4040009a0000003974254465900", "it is as it was found");
}

#[test]
fn identity_of_card_in_use_is_partial() {
    for in_use in [false, true] {
        let (identity, _) = ask_as(&mut Script::gids(Protocol::T1), &plan(&Family::ALL), in_use);
        assert_eq!(identity.unwrap().partial, in_use);
    }
}

#[test]
fn card_without_id_is_probed_by_next_family() {
    let blank = || Script::gids(Protocol::T1).on("00cba012045c02df2000", "df20009000");
    let error = identify_as(&mut blank(), &[Family::Gids, Family::Piv]).unwrap_err();
    assert!(matches!(error, ProbeError::NoId { family: Family::Gids, .. }));
    let zeros = blank().on("00cba012045c02df2000", &format!("df2010{}9000", "00".repeat(16)));
    let identity = identify_as(&mut with_piv(zeros), &[Family::Gids, Family::Piv]).unwrap();
    assert_eq!(identity.family, Family::Piv);
}

#[test]
fn gids_and_piv_card_has_ids_of_both() {
    let rules = |families: &[Family]| {
        let mut card = with_piv(Script::gids(Protocol::T1));
        let identity = identify_as(&mut card, families).unwrap();
        (identity.family, identity.candidates().map(|c| c.rule.as_str()).collect::<Vec<_>>())
    };
    let gids = ["gids-cardid", "gids-cardid-be"];
    let piv = ["piv-guid-le", "piv-guid-be", "piv-opensc"];
    assert_eq!(
        rules(&[Family::Gids, Family::Piv]),
        (Family::Gids, [gids.as_slice(), &piv].concat())
    );
    assert_eq!(
        rules(&[Family::Piv, Family::Gids]),
        (Family::Piv, [piv.as_slice(), &gids].concat())
    );
    assert_eq!(rules(&[Family::Gids]), (Family::Gids, gids.to_vec()));
    assert_eq!(rules(&[Family::Piv]), (Family::Piv, piv.to_vec()));
}

/// A card that has an OpenPGP application besides whatever else it has.
fn with_openpgp(card: Script, manufacturer_and_serial: &str) -> Script {
    card.on("00a4040006d2760001240100", "9000")
        .on("00ca004f00", &format!("d276000124010304{manufacturer_and_serial}00009000"))
}

/// ATRs that hint at each family, at none, and at cards whose serial number OpenSC asks for.
const ATRS: [&str; 9] = [
    "3b00",
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
fn identity_does_not_depend_on_atr() {
    let t1 = || Script::new(Protocol::T1);
    let blank_gids = || Script::gids(Protocol::T1).on("00cba012045c02df2000", "df20009000");
    let cards: [(&str, &dyn Fn() -> Script, Family, usize); 6] = [
        (
            "gids-openpgp",
            &|| with_openpgp(Script::gids(Protocol::T1), "000612345678"),
            Family::Gids,
            2,
        ),
        ("gids-piv", &|| with_piv(Script::gids(Protocol::T1)), Family::Gids, 5),
        ("piv-openpgp", &|| with_openpgp(with_piv(t1()), "000612345678"), Family::Piv, 3),
        ("openpgp", &|| with_openpgp(t1(), "000612345678"), Family::Openpgp, 1),
        ("test openpgp", &|| with_openpgp(t1(), "ffff00000001"), Family::Openpgp, 1),
        ("blank gids", &|| with_openpgp(blank_gids(), "000612345678"), Family::Openpgp, 1),
    ];
    for (name, card, family, count) in cards {
        let run = |atr: &str| {
            let (atr, plan, mut card) = (atr.parse().unwrap(), plan(&Family::ALL), card());
            let subject = ProbeTarget { atr: &atr, plan: &plan, in_use: false };
            identify(&mut card, subject, &mut Inventory::default()).unwrap()
        };
        let identity = run(ATRS[0]);
        assert_eq!((identity.family, identity.candidates().count()), (family, count), "{name}");
        for atr in ATRS {
            let again = run(atr).with_inventory(Inventory::default());
            assert_eq!(
                again,
                identity.clone().with_inventory(Inventory::default()),
                "{name} {atr}"
            );
        }
    }
}

#[test]
fn strongest_id_is_first_and_shared_continues_search() {
    let counted = "000102030405060708090a0b0c0d0e0f";
    let gids =
        Script::gids(Protocol::T1).on("00cba012045c02df2000", &format!("df2010{counted}9000"));
    let identity = identify_as(&mut with_openpgp(gids, "000612345678"), &Family::ALL).unwrap();
    assert_eq!(identity.family, Family::Openpgp);
    assert_eq!(identity.serial.to_string(), "000612345678");
    let strengths: Vec<_> = identity.candidates().map(|id| (id.rule, id.strength)).collect();
    assert_eq!(
        strengths,
        [
            (IdRule::OpenpgpOpensc, Strength::Serial),
            (IdRule::GidsCardid, Strength::Shared),
            (IdRule::GidsCardidBe, Strength::Shared),
        ]
    );
}

#[test]
fn pinned_rule_makes_id_count_except_placeholder() {
    for (card, pinned) in [
        ("fffe52ff6f06", true),
        ("123412345678", true),
        ("000600000000", false),
        ("ffff00000001", false),
        ("000012345678", false),
    ] {
        let mut script = with_openpgp(Script::gids(Protocol::T1), card);
        let families = vec![Family::Gids, Family::Openpgp];
        let plan = ProbePlan { families, id_rule: Some(IdRule::OpenpgpOpensc), inventory: true };
        let identity = ask_as(&mut script, &plan, false).0.unwrap();
        let ids: Vec<_> = identity.candidates().map(|id| (id.rule, id.pinned)).collect();
        assert_eq!(ids, [(IdRule::OpenpgpOpensc, pinned)], "{card}");
    }
}

#[test]
fn pinned_rule_keeps_only_its_candidate() {
    let run = |families: Vec<Family>, rule| {
        let mut card = with_piv(Script::gids(Protocol::T1));
        let plan = ProbePlan { families, id_rule: Some(rule), inventory: true };
        ask_as(&mut card, &plan, false).0
    };
    let identity = run(vec![Family::Piv], IdRule::PivGuidBe).unwrap();
    let ids: Vec<_> = identity.candidates().map(|c| c.card_id.to_string()).collect();
    assert_eq!(ids, ["a04f5343-7310-01f9-aa6e-34537bee6fc1"]);

    let missing = run(vec![Family::Piv], IdRule::PivFascn).unwrap_err();
    assert!(missing.to_string().contains("no id by the rule piv-fascn"), "{missing}");
}

#[test]
fn card_in_use_gets_no_select() {
    let selects =
        |card: &Script| card.sent().iter().filter(|sent| sent.starts_with("00a4")).count();
    let mut gids = Script::gids(Protocol::T1);
    let (result, _) = ask_as(&mut gids, &plan(&Family::ALL), true);
    assert_eq!(result.unwrap().family, Family::Gids);
    assert_eq!(selects(&gids), 0);

    let mut piv = with_piv(Script::new(Protocol::T1))
        .on("00cb3fff035c017e00", "7e0d4f0ba00000030800001000010 09000");
    let (result, _) = ask_as(&mut piv, &plan(&Family::ALL), true);
    assert_eq!(result.unwrap().family, Family::Piv);
    assert_eq!(selects(&piv), 0);

    let mut other = Script::new(Protocol::T1);
    assert_eq!(ask_as(&mut other, &plan(&Family::ALL), true).0, Err(ProbeError::InUse));
    assert_eq!(selects(&other), 0);
    assert!(other.sent().len() <= 3, "{:?}", other.sent());
}

#[test]
fn card_accepting_everything_with_data_is_not_identified() {
    for answer in ["9000", "00009000", "53009000", "6f009000", "611200009000"] {
        let answers = vec![hex::decode(answer).unwrap()];
        for in_use in [false, true] {
            let mut card = Hostile { answers: answers.clone(), protocol: Protocol::T1, sent: 0 };
            let (result, inventory) = ask_as(&mut card, &plan(&Family::ALL), in_use);
            assert!(result.is_err(), "{answer}: {result:?}");
            assert!(inventory.is_empty(), "{answer}: {inventory:?}");
            assert!(card.sent <= MAX_COMMANDS, "{answer}: {}", card.sent);
        }
    }
}

/// Answers that get past one check or another, and ones that get past none.
fn answer() -> impl Strategy<Value = Vec<u8>> {
    let bytes = |text: &str| hex::decode(text.replace(' ', "")).unwrap();
    let object = |tag: &'static [u8]| {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(move |data| {
            let length = u8::try_from(data.len()).unwrap();
            [tag, &[0x81, length], &data, &[0x90, 0x00]].concat()
        })
    };
    prop_oneof![
        Just(bytes(GIDS_SELECTED)),
        Just(bytes(&format!("df1f818d{GIDS_TABLE}9000"))),
        Just(bytes("9000")),
        Just(bytes("61114f0600001000010079074f05a0000003089000")),
        Just(bytes(&format!("53123410{GUID}9000"))),
        Just(bytes("d27600012401030400061234567800009000")),
        Just(bytes("301e0201000408927600000000123 40c0541434d452180044341524403020430 9000")),
        Just(bytes("61194f0ca000000063504b43532d31355009504b435323313520619000")),
        prop::collection::vec(any::<u8>(), 0..300),
        object(&[0x53]),
        object(&[0x30]),
        object(&[0x61]),
        object(&[0xDF, 0x1F]),
        (prop::collection::vec(any::<u8>(), 0..300), any::<u8>()).prop_map(|(mut data, xx)| {
            data.extend([0x61, xx]);
            data
        }),
        (prop::collection::vec(any::<u8>(), 0..4), any::<u8>()).prop_map(|(mut data, xx)| {
            data.extend([0x6C, xx]);
            data
        }),
    ]
}

proptest! {
    #[test]
    fn hostile_card_ends_probe(
        answers in prop::collection::vec(answer(), 1..24),
        families in Just(Family::ALL.to_vec()).prop_shuffle(),
        t0 in any::<bool>(),
        in_use in any::<bool>(),
    ) {
        let protocol = if t0 { Protocol::T0 } else { Protocol::T1 };
        let mut card = Hostile { answers, protocol, sent: 0 };
        let (result, _) = ask_as(&mut card, &plan(&families), in_use);
        prop_assert!(card.sent <= MAX_COMMANDS);
        if let Ok(identity) = result {
            let is_placeholder = |id: &crate::domain::CardId| id.uuid().is_nil() || id.uuid().is_max();
            prop_assert!(!identity.candidates().any(|c| is_placeholder(&c.card_id)));
        }
    }
}
