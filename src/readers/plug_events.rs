//! Readers that came and went, by pcscd's count of that and by the lists of them.
//!
//! pcscd counts from pcsc-lite 2.3 on. A reader that was pulled and put back between two lists is in
//! both, and its own count of insertions begins at 0 again; only pcscd's count of readers tells.

/// pcscd's count goes from here to 1, and is never 0.
const MAX_AHEAD: u32 = 0x7FFF;

/// How far pcscd's count is ahead of the lists.
#[derive(Debug, Default)]
pub(super) struct PlugEvents {
    ahead: i64,
}

impl PlugEvents {
    /// pcscd's count was one number and is another. A count of 0 is none.
    pub(super) fn counted(&mut self, before: u32, now: u32) {
        if before != 0 && now != 0 {
            self.ahead += i64::from((now + MAX_AHEAD - before) % MAX_AHEAD);
        }
    }

    /// A list that was made after that count shows so many readers that came or went. Tells whether
    /// there were more.
    pub(super) fn listed(&mut self, moved: usize) -> bool {
        self.ahead -= i64::try_from(moved).unwrap_or(i64::MAX);
        let were_more = self.ahead > 0;
        if were_more {
            self.ahead = 0;
        }
        were_more
    }

    /// Nothing happened for a while: what was listed and is not counted yet never will be, as with two
    /// readers that are one device.
    pub(super) fn settle(&mut self) {
        self.ahead = self.ahead.max(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_is_in_both_lists_and_was_away_is_noticed() {
        let mut comings = PlugEvents::default();
        comings.counted(3, 5);
        assert!(comings.listed(0));
        assert!(!comings.listed(0), "once");
        comings.counted(5, 6);
        assert!(!comings.listed(1), "it came");
        comings.counted(6, 9);
        assert!(comings.listed(1), "one came, another was away");
    }

    #[test]
    fn a_list_may_be_ahead_of_the_count() {
        let mut comings = PlugEvents::default();
        assert!(!comings.listed(1));
        comings.counted(1, 2);
        assert!(!comings.listed(0));
        comings.counted(2, 4);
        assert!(comings.listed(0));
    }

    #[test]
    fn what_is_never_counted_hides_nothing_later() {
        let mut comings = PlugEvents::default();
        assert!(!comings.listed(2));
        comings.settle();
        comings.counted(2, 4);
        assert!(comings.listed(0));
    }

    #[test]
    fn the_count_goes_round_and_there_may_be_none() {
        let mut comings = PlugEvents::default();
        comings.counted(MAX_AHEAD, 1);
        assert!(comings.listed(0));
        comings.counted(MAX_AHEAD - 1, 2);
        assert!(!comings.listed(3));
        comings.counted(0, 7);
        comings.counted(7, 0);
        assert!(!comings.listed(0));
    }
}
