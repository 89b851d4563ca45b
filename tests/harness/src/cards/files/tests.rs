use super::*;

const DIRECTORY: u16 = 0x5015;

fn files(quirks: &str) -> Files {
    let mut files = Files::new(toml::from_str(quirks).unwrap());
    files.add([0x2F00], Node::Records(vec![vec![1, 2], vec![3]]));
    files.add([DIRECTORY], Node::Directory(Some(b"A-NAME".to_vec())));
    files.add([DIRECTORY, 0x5032], Node::Transparent(vec![1, 2, 3, 4]));
    files
}

fn ask(files: &mut Files, apdu: &str) -> (String, u16) {
    let apdu = hex::decode(apdu).unwrap();
    let answer = files.command(&Command::parse(&apdu).unwrap());
    (hex::encode_upper(&answer.data), answer.status)
}

fn status(files: &mut Files, apdu: &str) -> u16 {
    ask(files, apdu).1
}

#[test]
fn a_file_is_found_by_path_and_step_by_step() {
    let mut files = files("");
    for steps in [
        &["00A408000450155032"][..],
        &["00A40800063F0050155032"],
        &["00A40000023F00", "00A40000025015", "00A40000025032"],
        &["00A40000023F00", "00A40100025015", "00A40200025032"],
        &["00A408000250 15".replace(' ', "").as_str(), "00A40900025032"],
    ] {
        files.reset();
        for step in steps {
            assert_eq!(status(&mut files, step), OK, "{step} of {steps:?}");
        }
        assert_eq!(ask(&mut files, "00B0000004"), ("01020304".to_owned(), OK));
    }
}

#[test]
fn file_control_information_has_size_and_identifier() {
    let mut files = files("");
    let (data, _) = ask(&mut files, "00A40800045015503200");
    assert_eq!(data, "6F0B8002000482010183025032");
    assert_eq!(ask(&mut files, "00A4080C0450155032"), (String::new(), OK));
}

#[test]
fn a_file_beside_the_current_one_is_near_and_a_file_elsewhere_is_not() {
    let mut files = files("");
    assert_eq!(status(&mut files, "00A40000025015"), OK);
    assert_eq!(status(&mut files, "00A40000022F00"), OK);
    assert_eq!(status(&mut files, "00A40000025032"), NOT_FOUND);
    assert_eq!(status(&mut files, "00A40200024444"), NOT_FOUND);
}

#[test]
fn records_end_with_6a83() {
    let mut files = files("");
    assert_eq!(status(&mut files, "00A40000022F00"), OK);
    assert_eq!(ask(&mut files, "00B2020400"), ("03".to_owned(), OK));
    assert_eq!(status(&mut files, "00B2030400"), RECORD_NOT_FOUND);
    assert_eq!(status(&mut files, "00B0000000"), 0x6981);
}

#[test]
fn end_of_file_has_configured_status() {
    for (quirks, expected) in [
        ("", ("0304".to_owned(), OK)),
        ("end = '6282'", ("0304".to_owned(), END_OF_FILE)),
        ("end = '6Cxx'", (String::new(), 0x6C02)),
    ] {
        let mut files = files(quirks);
        ask(&mut files, "00A408000450155032");
        assert_eq!(ask(&mut files, "00B0000200"), expected);
        assert_eq!(ask(&mut files, "00B0000202"), ("0304".to_owned(), OK));
        assert_eq!(status(&mut files, "00B0000400"), WRONG_OFFSET);
    }
}

#[test]
fn unknown_select_parameters_are_rejected() {
    let mut strict = files("by_identifier_only = true\nalways_answers = true");
    assert_eq!(status(&mut strict, "00A40800045015503200"), WRONG_PARAMETERS);
    assert_eq!(status(&mut strict, "00A40200022F00"), WRONG_PARAMETERS);
    assert_eq!(status(&mut strict, "00A4000C022F00"), WRONG_PARAMETERS);
    assert_eq!(status(&mut strict, "00A40000022F00"), OK);
}
