//! Requests that link two cards: which of them an update is for.

use cardbridge_harness::cards::GidsCard;

use super::*;

/// A CM in which the seed's request links these records as its old and its new card.
fn cm_linking(request_type: u32, old: Uuid, new: Uuid) -> CmOptions {
    let mut store = Store::seed();
    let request = store.requests.first_mut().unwrap();
    request.request_type = request_type;
    (request.old_smartcard_uuid, request.new_smartcard_uuid) = (old, new);
    CmOptions { store, ..CmOptions::default() }
}

#[test]
fn request_for_new_card_changes_nothing() {
    let another = Uuid::from_u128(0x1234);
    for (request_type, old) in [(RETIRE, another), (RETIRE, Uuid::nil()), (DISABLE, another)] {
        let world = require!(world());
        let cm = cm_linking(request_type, old, RECORD.parse().unwrap());
        let world = world.cm(cm).start().unwrap();
        let _card = world.insert(0, GidsCard::seed()).unwrap();
        assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["nothing-to-do"], "{old}");
        assert_eq!(world.cm.puts().len(), 0);
        assert_eq!(status(&world), ACTIVE);
        let lookup = world.cli(&["lookup", "--card-id", CARD]).unwrap().stdout;
        let why = format!("names record {RECORD} only as NewSmartcardUuid");
        assert!(lookup.contains(&why), "{lookup}");
        let json = world.cli(&["lookup", "--card-id", CARD, "--json"]).unwrap().json().unwrap();
        assert_eq!(json["requests"][0]["new_card"], RECORD);
        world.finish().unwrap();
    }
}

#[test]
fn request_for_old_card_is_applied() {
    let world = require!(world());
    let cm = cm_linking(RETIRE, RECORD.parse().unwrap(), Uuid::from_u128(0x1234));
    let world = world.cm(cm).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    assert_eq!(status(&world), RETIRED);
    world.finish().unwrap();
}
