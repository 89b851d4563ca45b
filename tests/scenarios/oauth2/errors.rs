//! No token: what the operator sees, and that it recovers by itself.

use super::*;

#[test]
fn rejected_client_is_reported_until_secret_changes() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    fs::write(adfs.file("secret"), "wrong").unwrap();
    let world = adfs.world(builder, &[]).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(
        detail.contains("says no: invalid_client: MSIS9622: Client authentication failed"),
        "{detail}"
    );
    let id = detail.rsplit_once("client-request-id ").unwrap().1.trim_end_matches(')');
    let asked = adfs.cm.log();
    assert!(asked.iter().any(|call| call.header("client-request-id") == Some(id)), "{id}");
    assert!(world.daemon_log().contains("MSIS9622"), "{}", world.daemon_log());
    assert!(world.cm.log().is_empty(), "nothing is asked without a token");
    fs::write(adfs.file("secret"), SECRET).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn unavailable_endpoint_is_backed_off_until_it_returns() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    adfs.cm.set_fault(Fault::Unavailable { retry_after: None }.path(TOKEN_PATH));
    let world = adfs.world(builder, &[]).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(detail.contains("answers 503 Service Unavailable"), "{detail}");
    let several = || adfs.cm.log().len() >= 3;
    world.wait_until("some tries", LONG, several).unwrap();
    // The outbox would try every half second; the endpoint is called at growing intervals.
    let times: Vec<_> = adfs.cm.log().iter().map(|call| call.at).collect();
    let gaps: Vec<_> =
        times.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap()).collect();
    assert!(
        gaps[0] >= Duration::from_millis(490) && gaps[1] >= Duration::from_millis(990),
        "{gaps:?}"
    );
    adfs.cm.go_away().unwrap();
    let gone = || away(&world, "credentials").contains("no connection to");
    world.wait_until("the outage to be logged", LONG, gone).unwrap();
    adfs.cm.come_back().unwrap();
    adfs.cm.clear_faults();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}

#[test]
fn endpoint_redirect_is_reported_and_not_followed() {
    let builder = require!(world());
    let (adfs, elsewhere) = (Adfs::with_secret(), Adfs::with_secret());
    let location = format!("{}{TOKEN_PATH}", elsewhere.cm.url());
    adfs.cm.set_fault(Fault::Redirect { status: 307, location }.path(TOKEN_PATH));
    let world = adfs.world(builder, &[]).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(detail.contains("redirects to 127.0.0.1, where nothing is sent"), "{detail}");
    assert!(elsewhere.cm.log().is_empty());
    world.finish().unwrap();
}

#[test]
fn token_for_other_resource_is_reported() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    let world = adfs.world(builder, &[]).config_set("cm.auth.resource", "\"urn:other\"");
    let world = world.start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(
        detail.contains("invalid_resource: MSIS9602") && detail.contains("cm.auth.resource"),
        "{detail}"
    );
    world.finish().unwrap();
}

#[test]
fn rejected_tokens_are_reported_without_token_storm() {
    let builder = require!(world());
    let adfs = Adfs::with_secret();
    let world = adfs.world(builder, &[]).start().unwrap();
    world.cm.set_fault(Fault::Unauthorized);
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let fresh = || away(&world, "unauthorized").contains("CM rejects a fresh token");
    world.wait_until("the refusal to be logged", LONG, fresh).unwrap();
    let many = || refusals(&world) >= 30;
    world.wait_until("many refusals", LONG, many).unwrap();
    assert!(adfs.tokens.issued() < refusals(&world) / 2, "{}", adfs.tokens.issued());
    world.cm.clear_faults();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}
