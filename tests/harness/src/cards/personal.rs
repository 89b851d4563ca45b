//! Personalisation files: what a card is, in TOML that can be written by hand.
//!
//! Each table named after a family is an applet; a card with several has
//! several applets. Unknown keys are refused.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use super::applet::Applet;
use super::applet_card::{AppletCard, Quirks};
use super::hex_text::{Exactly, Hex, Word};
use super::hostile::{HostileCard, Malice};
use super::transport::Protocol;
use super::{Card, gids, idprime, openpgp, piv, pkcs15};

/// The card of a personalisation file, whatever its family.
pub fn load(path: impl AsRef<Path>) -> Result<Box<dyn Card>> {
    read(path.as_ref(), |file| match file.hostile {
        Some(_) => file.hostile_card(),
        None => Ok(Box::new(file.applet_card()?)),
    })
}

impl AppletCard {
    /// The card of a personalisation file that has at least one applet.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        read(path.as_ref(), |file| {
            ensure!(file.hostile.is_none(), "it is hostile, and more than its applets");
            file.applet_card()
        })
    }
}

fn read<T>(path: &Path, make: impl FnOnce(Personalisation) -> Result<T>) -> Result<T> {
    let card = || make(toml::from_str(&fs::read_to_string(path)?)?);
    card().with_context(|| format!("the card {}", path.display()))
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Personalisation {
    atr: Hex,
    #[serde(default)]
    protocol: Protocol,
    /// Answers a SELECT by an AID that is not on the card.
    #[serde(default = "not_found")]
    unknown_aid: Word,
    /// SELECT by AID answers 9000 without data.
    #[serde(default)]
    bare_select: bool,
    /// Whether APDUs of extended length are understood.
    #[serde(default)]
    extended: bool,
    /// The applet that a reset selects.
    default_selected: Option<String>,
    cplc: Option<Exactly<42>>,
    /// Contactless identifier; the ATR must be a contactless one.
    uid: Option<Hex>,
    gids: Option<gids::Personal>,
    idprime: Option<idprime::Personal>,
    openpgp: Option<openpgp::Personal>,
    piv: Option<piv::Personal>,
    pkcs15: Option<pkcs15::Personal>,
    hostile: Option<Hostile>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hostile {
    malice: Malice,
    #[serde(default)]
    seed: u64,
}

fn not_found() -> Word {
    Word(super::apdu::NOT_FOUND)
}

type Installation = (Box<dyn Applet>, Option<String>);

impl Personalisation {
    fn hostile_card(self) -> Result<Box<dyn Card>> {
        let Some(Hostile { malice, seed }) = self.hostile else { bail!("no [hostile]") };
        let card = HostileCard::new(self.atr.0.clone(), malice).with_seed(seed);
        let card = if self.has_applets() { card.behind(self.applet_card()?) } else { card };
        Ok(Box::new(card))
    }

    fn has_applets(&self) -> bool {
        self.gids.is_some()
            || self.idprime.is_some()
            || self.openpgp.is_some()
            || self.piv.is_some()
            || self.pkcs15.is_some()
    }

    fn applet_card(self) -> Result<AppletCard> {
        let mut card = AppletCard::new(self.atr.0.clone(), self.quirks());
        ensure!(
            self.uid.is_none() || is_contactless(&self.atr.0),
            "uid: the ATR is not of a contactless card (3B8n8001...)"
        );
        if let Some(Exactly(cplc)) = self.cplc {
            card.set_cplc(cplc.to_vec());
        }
        if let Some(Hex(uid)) = &self.uid {
            card.set_uid(uid.clone());
        }
        let default = self.default_selected.clone();
        let applets = self.applets()?;
        ensure!(!applets.is_empty(), "no applet: [gids], [idprime], [openpgp], [piv] or [pkcs15]");
        for (applet, pin) in applets {
            card.install(applet, pin.map(String::into_bytes));
        }
        if let Some(name) = default {
            ensure!(card.select_by_default(&name), "default_selected: there is no [{name}]");
        }
        Ok(card)
    }

    fn quirks(&self) -> Quirks {
        Quirks {
            protocol: self.protocol,
            unknown_aid: self.unknown_aid.0,
            bare_select: self.bare_select,
            extended: self.extended,
        }
    }

    fn applets(self) -> Result<Vec<Installation>> {
        let mut applets: Vec<Installation> = Vec::new();
        if let Some(mut gids) = self.gids {
            let pin = gids.pin.take();
            applets.push((Box::new(gids.applet()), pin));
        }
        if let Some(mut idprime) = self.idprime {
            let pin = idprime.pin.take();
            applets.push((Box::new(idprime.applet()), pin));
        }
        if let Some(mut openpgp) = self.openpgp {
            let pin = openpgp.pin.take();
            applets.push((Box::new(openpgp.applet()), pin));
        }
        if let Some(mut piv) = self.piv {
            let pin = piv.pin.take();
            applets.push((Box::new(piv.applet()?), pin));
        }
        if let Some(mut pkcs15) = self.pkcs15 {
            let pin = pkcs15.pin.take();
            applets.push((Box::new(pkcs15.applet()?), pin));
        }
        Ok(applets)
    }
}

fn is_contactless(atr: &[u8]) -> bool {
    matches!(atr, [0x3B, 0x80..=0x8F, 0x80, 0x01, ..])
}

#[cfg(test)]
mod tests;
