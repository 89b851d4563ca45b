//! The rules by which candidate ids are made. `docs/cards.md` says how sure each of them is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Family, UnknownEnumValue};

/// The rule by which a candidate id was made from what the card said.
///
/// *LE* means a Windows GUID in memory order: the first three fields little-endian. *BE* means the
/// bytes in reading order (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdRule {
    /// The GIDS file `cardid`, LE.
    GidsCardid,
    /// The GIDS file `cardid`, BE, as a hand-made card may have it.
    GidsCardidBe,
    /// The IDPrime file `cardid`, LE.
    IdprimeCardid,
    /// The IDPrime file `cardid`, BE.
    IdprimeCardidBe,
    /// The GUID in the PIV CHUID, LE: what Windows makes of 16 bytes.
    PivGuidLe,
    /// The GUID in the PIV CHUID, BE: what the standard calls it.
    PivGuidBe,
    /// The first 16 bytes of the FASC-N in the PIV CHUID, LE.
    PivFascn,
    /// What OpenSC's minidriver makes of the serial that OpenSC sees on a PIV card.
    PivOpensc,
    /// What OpenSC's minidriver makes of manufacturer and serial of an OpenPGP card.
    OpenpgpOpensc,
    /// What OpenSC's minidriver makes of the serial in a PKCS#15 card's TokenInfo.
    Pkcs15Opensc,
}

impl IdRule {
    /// Every rule that a site may pin.
    pub const ALL: [Self; 10] = [
        Self::GidsCardid,
        Self::GidsCardidBe,
        Self::IdprimeCardid,
        Self::IdprimeCardidBe,
        Self::PivGuidLe,
        Self::PivGuidBe,
        Self::PivFascn,
        Self::PivOpensc,
        Self::OpenpgpOpensc,
        Self::Pkcs15Opensc,
    ];

    /// The name in configuration and output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GidsCardid => "gids-cardid",
            Self::GidsCardidBe => "gids-cardid-be",
            Self::IdprimeCardid => "idprime-cardid",
            Self::IdprimeCardidBe => "idprime-cardid-be",
            Self::PivGuidLe => "piv-guid-le",
            Self::PivGuidBe => "piv-guid-be",
            Self::PivFascn => "piv-fascn",
            Self::PivOpensc => "piv-opensc",
            Self::OpenpgpOpensc => "openpgp-opensc",
            Self::Pkcs15Opensc => "pkcs15-opensc",
        }
    }

    /// The family whose cards give such an id.
    #[must_use]
    pub const fn family(self) -> Family {
        match self {
            Self::GidsCardid | Self::GidsCardidBe => Family::Gids,
            Self::IdprimeCardid | Self::IdprimeCardidBe => Family::Idprime,
            Self::PivGuidLe | Self::PivGuidBe | Self::PivFascn | Self::PivOpensc => Family::Piv,
            Self::OpenpgpOpensc => Family::Openpgp,
            Self::Pkcs15Opensc => Family::Pkcs15,
        }
    }
}

impl FromStr for IdRule {
    type Err = UnknownEnumValue;

    fn from_str(name: &str) -> Result<Self, UnknownEnumValue> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == name).ok_or_else(|| UnknownEnumValue {
            name: name.to_owned(),
            known: "gids-cardid, gids-cardid-be, idprime-cardid, idprime-cardid-be, piv-guid-le, \
                    piv-guid-be, piv-fascn, piv-opensc, openpgp-opensc, pkcs15-opensc",
        })
    }
}

impl fmt::Display for IdRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_found_by_the_name_that_it_is_stored_and_shown_by() {
        for rule in IdRule::ALL {
            assert_eq!(rule.as_str().parse(), Ok(rule));
            assert_eq!(serde_json::to_value(rule).unwrap(), rule.as_str());
            assert!(rule.as_str().starts_with(rule.family().as_str()));
        }
        let error = "piv".parse::<IdRule>().unwrap_err();
        assert!(IdRule::ALL.iter().all(|rule| error.known.contains(rule.as_str())));
    }
}
