//! No secret at all: the token endpoint is logged on to with Kerberos, from the station's keytab.

use cardbridge_harness::apache::{self, Apache, ApacheOptions, Negotiate};
use cardbridge_harness::kdc::{self, Kdc, KdcOptions};

use super::secrets::{Hidden, assert_kept, shown};
use super::*;

const STATION: &str = "desk-3";

/// An AD FS behind a server that does the logging on.
struct Site {
    adfs: Adfs,
    kdc: Kdc,
    apache: Apache,
}

impl Site {
    fn start() -> Result<Self, String> {
        kdc::available()?;
        apache::available()?;
        let (adfs, kdc) = (Adfs::start(), Kdc::start(KdcOptions::default()).unwrap());
        kdc.add_principal(STATION).unwrap();
        kdc.add_principal("desk-4").unwrap();
        adfs.tokens.register_user(CLIENT, &format!("{STATION}@{}", kdc.realm()));
        let negotiate = Some(Negotiate::of(&kdc).unwrap());
        let before = ApacheOptions::before(adfs.cm.address());
        let apache = Apache::start(&ApacheOptions { negotiate, ..before }).unwrap();
        Ok(Self { adfs, kdc, apache })
    }

    fn world(&self, builder: WorldBuilder, account: &str) -> WorldBuilder {
        let keytab = self.kdc.keytab(account).unwrap();
        let url = format!("{}{TOKEN_PATH}", self.apache.url());
        self.adfs
            .world(builder, &[])
            .env("KRB5_CONFIG", self.kdc.krb5_conf())
            .config_set("cm.auth.token_url", &format!("{url:?}"))
            .config_set("cm.auth.use_windows_client_authentication", "true")
            .config_set("cm.auth.keytab", &quoted(&keytab))
    }
}

#[test]
fn ticket_gets_token_that_updates_card() {
    let builder = require!(world());
    let site = require!(Site::start());
    let world = site.world(builder, STATION).start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    let [asked] = site.adfs.tokens.requests().try_into().unwrap();
    assert_eq!((asked.proof, asked.refused), (ClientProof::Windows, None));
    let output = world.cli(&["status"]).unwrap().stdout;
    assert!(output.contains(&format!("oauth2 as {CLIENT}, valid until 2")), "{output}");
    world.finish().unwrap();
}

#[test]
fn ticket_and_its_token_do_not_leak() {
    let builder = require!(world());
    let site = require!(Site::start());
    assert_kept(site.world(builder, STATION), &site.adfs, |world| {
        let log = site.adfs.cm.log();
        let lines = log.iter().filter_map(|call| call.header("authorization"));
        let tickets = lines.filter_map(|line| line.strip_prefix("Negotiate "));
        let hidden = |text: &str| Hidden { name: "a ticket", text: text.to_owned(), kept: true };
        let tickets: Vec<_> = tickets.map(hidden).collect();
        assert!(!tickets.is_empty());
        shown(world).into_iter().chain(tickets).collect()
    });
}

#[test]
fn account_of_other_client_is_reported() {
    let builder = require!(world());
    let site = require!(Site::start());
    let world = site.world(builder, "desk-4").start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(detail.contains("says no: invalid_client: MSIS9622"), "{detail}");
    let refused = site.adfs.tokens.requests()[0].refused.clone().unwrap();
    assert!(refused.starts_with("not its account: \"desk-4@"), "{refused}");
    world.finish().unwrap();
}

#[test]
fn keytab_without_key_is_reported_without_token_request() {
    let builder = require!(world());
    let site = require!(Site::start());
    let keytab = site.adfs.file("keytab");
    fs::write(&keytab, "").unwrap();
    let world = site.world(builder, STATION).config_set("cm.auth.keytab", &quoted(&keytab));
    let world = world.start().unwrap();
    let _card = world.insert(0, GidsCard::seed()).unwrap();
    let detail = away(&world, "credentials");
    assert!(detail.starts_with("no token from ") && detail.contains("keytab"), "{detail}");
    assert!(site.adfs.cm.log().is_empty());
    fs::write(&keytab, fs::read(site.kdc.keytab(STATION).unwrap()).unwrap()).unwrap();
    assert_eq!(world.wait_for_outcomes(1, LONG).unwrap(), ["updated"]);
    world.finish().unwrap();
}
