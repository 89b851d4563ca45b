//! Many samples in one line.

use std::fmt;
use std::time::Duration;

/// The time between two moments, in milliseconds; negative where the second
/// was first.
pub(crate) type Millis = f64;

/// Samples, shown as their median and how far they are apart.
#[derive(Debug, Default)]
pub(crate) struct Spread(Vec<f64>);

impl Spread {
    fn at(sorted: &[f64], share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a position in a short list"
        )]
        let position = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
        sorted.get(position).copied().unwrap_or(f64::NAN)
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share| Self::at(&sorted, share);
        write!(
            out,
            "median {:7.2}   p5 {:7.2}   p95 {:7.2}   min {:7.2}   max {:7.2}   n {}",
            at(0.5),
            at(0.05),
            at(0.95),
            at(0.0),
            at(1.0),
            sorted.len(),
        )
    }
}

/// A duration as a number of milliseconds.
pub(crate) fn millis(duration: Duration) -> Millis {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_shows_median_and_extremes() {
        let spread: Spread = (1..=101).rev().map(f64::from).collect();
        let text = spread.to_string();
        assert!(text.contains("median   51.00"), "{text}");
        assert!(text.contains("p5    6.00   p95   96.00"), "{text}");
        assert!(text.contains("min    1.00   max  101.00   n 101"), "{text}");
    }
}
