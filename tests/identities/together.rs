//! Cards of several applications, in every combination.

use super::*;

/// What an application says, with an id that proves the card and with one that does not.
const APPLICATIONS: [(Family, &str, &str); 5] = [
    (
        Family::Gids,
        "[gids]\ncardid = \"3ff188bcba833740826246eba1291c6e\"",
        "[gids]\ncardid = \"000102030405060708090a0b0c0d0e0f\"",
    ),
    (
        Family::Idprime,
        "[idprime]\ncardid = \"7b1e44a0c9d35f628e10bb97d2f6a345\"",
        "[idprime]\ncardid = \"5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a\"",
    ),
    (
        Family::Piv,
        "[piv]\nguid = \"a04f5343731001f9aa6e34537bee6fc1\"",
        "[piv]\nfascn = \"d4e739da739ced39ce739d836858210842108421384210c3f5\"",
    ),
    (
        Family::Openpgp,
        "[openpgp]\nversion = \"0304\"\nmanufacturer = \"0006\"\nserial = \"12345678\"",
        "[openpgp]\nversion = \"0304\"\nmanufacturer = \"ffff\"\nserial = \"00000001\"",
    ),
    (
        Family::Pkcs15,
        "[pkcs15]\nlabel = \"CARD\"\nserial = \"9276000000001234\"",
        "[pkcs15]\nlabel = \"CARD\"\nserial = \"1212\"",
    ),
];

/// The families of a card's applications, and whether the id in each proves the card.
fn combinations() -> impl Iterator<Item = Vec<(Family, bool, &'static str)>> {
    (1..3_usize.pow(5)).map(|number| {
        let digit = |(n, application): (usize, &(Family, &'static str, &'static str))| {
            let (family, strong, weak) = *application;
            match number / 3_usize.pow(u32::try_from(n).unwrap()) % 3 {
                0 => None,
                1 => Some((family, true, strong)),
                _ => Some((family, false, weak)),
            }
        };
        APPLICATIONS.iter().enumerate().filter_map(digit).collect()
    })
}

#[test]
fn combined_application_ids_do_not_depend_on_atr() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("card.toml");
    for applications in combinations() {
        let has = |wanted| applications.iter().any(|(family, ..)| *family == wanted);
        let tables: Vec<_> = applications.iter().map(|(.., table)| *table).collect();
        let selected = if has(Family::Pkcs15) { "default_selected = \"pkcs15\"" } else { "" };
        let content = format!("atr = \"3b800181\"\n{selected}\n{}\n", tables.join("\n"));
        std::fs::write(&file, &content).unwrap();

        let own = ask(&file, None).1.unwrap();
        for atr in ATRS {
            assert_eq!(ask(&file, Some(atr)).1.as_ref(), Ok(&own), "{content} as {atr}");
        }
        let strengths: Vec<_> = own.candidates().map(|id| id.strength).collect();
        assert!(strengths.is_sorted(), "{content}: {strengths:?}");
        let given = |wanted| own.candidates().any(|id| id.rule.family() == wanted);
        let proving =
            applications.iter().find(|(_, proves, _)| *proves).map(|(family, ..)| *family);
        for (family, ..) in &applications {
            let before = proving.is_none_or(|proving| *family <= proving);
            let twin = proving == Some(Family::Gids) && *family == Family::Piv;
            assert_eq!(given(*family), before || twin, "{content}: {family}");
        }
        assert_eq!(own.family, proving.unwrap_or(applications[0].0), "{content}");
        assert_eq!(own.primary().strength != Strength::Shared, proving.is_some(), "{content}");
    }
}
