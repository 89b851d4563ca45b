//! How cards are probed by the configuration, and why a card is not identified.

use serde::{Deserialize, Serialize};
use strum::{IntoStaticStr, VariantArray};

use super::{Atr, AtrPattern, Family, IdRule, Inventory, ReaderSettings};

/// One `[[card]]` of the configuration: what a site knows about a kind of card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardRule {
    pub matches: AtrPattern,
    /// The families to probe, in this order; the station's where not set.
    pub families: Option<Vec<Family>>,
    /// The one rule whose id counts; every rule's candidates where not set.
    pub id_rule: Option<IdRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The families to probe, in this order.
    pub families: Vec<Family>,
    /// Every `[[card]]`, in file order; the first that matches wins.
    pub cards: Vec<CardRule>,
    /// Whether a card is asked for its inventory, once its identity is known.
    pub inventory: bool,
}

/// How one card is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePlan {
    pub families: Vec<Family>,
    /// The one rule whose id counts, where the site has pinned one.
    pub id_rule: Option<IdRule>,
    pub inventory: bool,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { families: Family::ALL.to_vec(), cards: Vec::new(), inventory: true }
    }
}

impl ProbeSettings {
    /// How a card with this ATR is probed. A rule that is pinned without families leaves only its own
    /// family: no other could give such an id.
    pub fn plan(&self, atr: &Atr) -> ProbePlan {
        let rule = self.cards.iter().find(|card| card.matches.matches(atr));
        let id_rule = rule.and_then(|rule| rule.id_rule);
        let families = rule
            .and_then(|rule| rule.families.clone())
            .or_else(|| id_rule.map(|rule| vec![rule.family()]))
            .unwrap_or_else(|| self.families.clone());
        ProbePlan { families, id_rule, inventory: self.inventory }
    }
}

/// A card that was seen but not identified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotIdentified {
    pub reason: NotIdentifiedReason,
    pub detail: String,
    /// What the card reports of itself all the same.
    #[serde(default, skip_serializing_if = "Inventory::is_empty")]
    pub inventory: Inventory,
}

impl NotIdentified {
    pub fn new(reason: NotIdentifiedReason, detail: String) -> Self {
        Self { reason, detail, inventory: Inventory::default() }
    }

    /// Why a card must not be accessed, if the configuration says so.
    pub fn skipped_by_config(
        settings: &ReaderSettings,
        skip_atr: &[AtrPattern],
        atr: &Atr,
    ) -> Option<Self> {
        let detail = if skip_atr.iter().any(|pattern| pattern.matches(atr)) {
            "cards.skip_atr names its ATR"
        } else if settings.enabled {
            return None;
        } else {
            "the reader is switched off"
        };
        Some(Self::new(NotIdentifiedReason::Skipped, detail.to_owned()))
    }
}

#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case", const_into_str)]
pub enum NotIdentifiedReason {
    /// No enabled family recognised it.
    UnknownFamily,
    /// The family is known, but the card holds no usable id.
    #[serde(alias = "no-id")]
    NoCardId,
    /// It did not answer at power-up: upside down, dirty or dead.
    Mute,
    /// Another program holds it exclusively, or uses it so that a probe would disturb that.
    #[serde(alias = "busy")]
    InUse,
    /// It was removed before it was read.
    Removed,
    /// It did not answer within the deadline.
    Timeout,
    /// The configuration says to skip it.
    Skipped,
    /// Reader or card failed meanwhile.
    #[serde(alias = "failed")]
    ReadError,
}

impl NotIdentifiedReason {
    pub const ALL: &'static [Self] = Self::VARIANTS;
}

enum_names!(NotIdentifiedReason);

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &str, families: Option<Vec<Family>>, id_rule: Option<IdRule>) -> CardRule {
        CardRule { matches: matches.parse().unwrap(), families, id_rule }
    }

    #[test]
    fn first_matching_card_rule_wins() {
        let cards = vec![
            rule("3b00??", None, Some(IdRule::PivGuidBe)),
            rule("3b????", Some(vec![Family::Openpgp, Family::Piv]), None),
        ];
        let probing = ProbeSettings { families: vec![Family::Gids], cards, inventory: true };
        let plan = |atr: &str| probing.plan(&atr.parse().unwrap());
        assert_eq!(plan("3b00aa").families, [Family::Piv]);
        assert_eq!(plan("3b00aa").id_rule, Some(IdRule::PivGuidBe));
        assert_eq!(plan("3b01aa").families, [Family::Openpgp, Family::Piv]);
        assert_eq!(plan("3b0000aa").families, [Family::Gids]);
    }
}
