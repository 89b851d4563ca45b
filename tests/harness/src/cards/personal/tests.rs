use std::fs;
use std::path::PathBuf;

use super::*;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../cards")
}

fn refusal(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("card.toml");
    fs::write(&path, text).unwrap();
    let Err(error) = load(&path) else { panic!("{text} is a card") };
    format!("{error:#}")
}

#[test]
fn every_committed_file_is_a_card() {
    let mut count = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let card = load(&path).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(card.atr().len() >= 2, "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with('#'), "{} says nothing of its bytes", path.display());
        count += 1;
    }
    assert!(count > 20, "only {count} files");
}

#[test]
fn invalid_card_file_error_names_problem() {
    for (text, named) in [
        ("atr = '3B80'", "no applet"),
        ("atr = '3B80'\nserail = 1\n[piv]", "unknown field `serail`"),
        ("atr = '3B80'\n[piv]\nguuid = '00'", "unknown field `guuid`"),
        ("atr = '3B8'\n[piv]", "is not hex"),
        ("atr = '3B80'\n[piv]\nguid = '0011'", "2 bytes where 16 are meant"),
        ("atr = '3B80'\ndefault_selected = 'gids'\n[piv]", "there is no [gids]"),
        ("atr = '3B80'\nuid = '01020304'\n[piv]", "not of a contactless card"),
        ("atr = '3B80'\n[piv]\nchuid = ''\nsignature = 1", "is the whole"),
        ("atr = '3B80'\n[pkcs15]\npath = '5015'", "does not begin with 3F00"),
        ("atr = '3B80'\n[hostile]\nmalice = 'rude'", "unknown variant `rude`"),
        ("[piv]", "missing field `atr`"),
    ] {
        let message = refusal(text);
        assert!(message.contains(named), "{text}: {message}");
        assert!(message.contains("card.toml"), "{message}");
    }
}

#[test]
fn the_example_in_the_document_is_a_card() {
    let document = include_str!("../../../../../docs/testing.md");
    let examples = document.split("```toml\n").skip(1);
    let examples: Vec<_> = examples.filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for text in examples {
        let card = toml::from_str::<Personalisation>(text).unwrap().applet_card();
        assert!(card.is_ok(), "{text}");
    }
}

#[test]
fn missing_card_file_is_named() {
    let Err(error) = load("no/such/card.toml") else { panic!() };
    assert!(format!("{error:#}").contains("no/such/card.toml"));
}

#[test]
fn hostile_card_behaves_until_applet_is_selected() {
    let mut card = load(directory().join("hostile-piv-huge.toml")).unwrap();
    card.power();
    let select = hex::decode("00A4040009A0000003080000100000").unwrap();
    assert!(card.command(&select).starts_with(&[0x61, 0x11]));
    let read = hex::decode("00CB3FFF055C035FC10200").unwrap();
    assert!(card.command(&read).ends_with(&[0x61, 0x00]));
}
