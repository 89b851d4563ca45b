use super::*;

fn offers(lines: &[&str]) -> Challenges {
    let lines: Vec<_> = lines.iter().map(|line| HeaderValue::from_str(line).unwrap()).collect();
    Challenges::new(&lines)
}

fn shown(channel: Channel) -> TokenDescription<'static> {
    TokenDescription { principal: "desk-3@EXAMPLE.COM", service: "HTTP/cm.example.com", channel }
}

#[track_caller]
fn assert_refusal(lines: &[&str], error: Option<&str>, expected: &[&str]) {
    let refusal = offers(lines).rejection(error, &shown(Channel::Bound));
    for expected in expected {
        assert!(refusal.contains(expected), "{refusal}");
    }
}

#[test]
fn schemes_are_found_on_one_line_or_on_many_and_parameters_are_none() {
    for lines in [
        &["Negotiate", "NTLM", "Basic realm=\"cm.example.com\""][..],
        &["negotiate, NTLM, Basic realm=\"cm, or not\", charset=\"UTF-8\""],
        &["Negotiate", "Negotiate", "ntlm, basic realm=x"],
    ] {
        let offers = offers(lines);
        assert!(offers.offers_negotiate(), "{lines:?}");
        assert!(offers.offers("NTLM") && offers.offers("Basic"), "{offers:?}");
        assert!(offers.token.is_none(), "{offers:?}");
    }
    assert!(!offers(&["NTLM", "", ",", "Bearer realm=\"Negotiate\""]).offers_negotiate());
}

#[test]
fn the_servers_token_is_taken_from_the_first_line_that_has_one() {
    let mut proof = offers(&["NTLM", "Negotiate", "Negotiate aGFsbG8=", "Negotiate Zm9v"]);
    assert_eq!(proof.token(), Some(Ok(b"hallo".to_vec())));
    assert_eq!(offers(&["Negotiate a*"]).token(), Some(Err(InvalidToken68)));
    assert_eq!(offers(&["NTLM aGFsbG8="]).token(), None);
    assert_eq!(offers(&[]).token(), None);
}

#[test]
fn missing_negotiate_names_offered_schemes() {
    let ntlm = "offers NTLM only: cardbridge has no NTLM";
    assert_refusal(&["NTLM"], None, &[ntlm, "add the provider Negotiate"]);
    assert_refusal(&["NTLM", "Basic realm=x"], None, &["offers NTLM, Basic only"]);
    assert_refusal(&["Basic realm=x"], None, &["Basic only: switch Windows Authentication"]);
    assert_refusal(&["Bearer error=\"invalid_token\""], None, &["set cm.auth.method to oauth2"]);
    assert_refusal(&[], None, &["it offers no authentication"]);
}

#[test]
fn rejected_ticket_is_reported_with_possible_causes() {
    let expected = [
        "rejected desk-3@EXAMPLE.COM in spite of a valid ticket",
        "(setspn -Q HTTP/cm.example.com)",
        "or this account has no access",
    ];
    assert_refusal(&["Negotiate", "NTLM"], None, &expected);
    let error = Some("Wrong principal in request");
    assert_refusal(&["Negotiate x"], error, &["rejected the ticket", "Wrong principal in"]);
}

#[test]
fn what_is_said_about_extended_protection_fits_the_channel() {
    let said = |channel| offers(&["Negotiate"]).rejection(None, &shown(channel));
    assert!(said(Channel::Bound).contains("something ends TLS before the server"));
    assert!(said(Channel::Disabled).contains("cm.auth.channel_bindings is false"));
    assert!(said(Channel::Unbound).contains("this channel has no bindings"));
}
