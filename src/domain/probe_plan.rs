//! What the configuration says about asking cards who they are.

use super::{Atr, AtrPattern, Family, IdRule};

/// One `[[card]]` of the configuration: what a site knows about a kind of card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardRule {
    /// Which cards it is about.
    pub matches: AtrPattern,
    /// The families that such a card is asked for, in this order; the station's where not set.
    pub families: Option<Vec<Family>>,
    /// The one rule whose id CM knows such cards by; every rule's candidates where not set.
    pub id_rule: Option<IdRule>,
}

/// How cards are asked who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The families that a card is asked for, in this order.
    pub families: Vec<Family>,
    /// Every `[[card]]`, in file order; the first that matches wins.
    pub cards: Vec<CardRule>,
    /// Whether a card is asked for its inventory, once it is known who it is.
    pub inventory: bool,
}

/// How one card is asked who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbePlan {
    /// The families that it is asked for, in this order.
    pub families: Vec<Family>,
    /// The one rule whose id counts, where the site has pinned one.
    pub id_rule: Option<IdRule>,
    /// Whether it is asked for its inventory.
    pub inventory: bool,
}

impl Default for ProbeSettings {
    /// Every family, and no card that is known better.
    fn default() -> Self {
        Self { families: Family::ALL.to_vec(), cards: Vec::new(), inventory: true }
    }
}

impl ProbeSettings {
    /// How a card with this ATR is asked.
    ///
    /// A rule that is pinned without families leaves only its own family to ask for: no other
    /// could give such an id.
    #[must_use]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(matches: &str, families: Option<Vec<Family>>, id_rule: Option<IdRule>) -> CardRule {
        CardRule { matches: matches.parse().unwrap(), families, id_rule }
    }

    #[test]
    fn the_first_card_rule_that_matches_wins_and_no_rule_means_the_usual() {
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
