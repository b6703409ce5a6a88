//! The median of some samples, and how far it can be trusted.

/// The most that the true median may lie outside of [`Spread::low`] and [`Spread::high`], on each side, as a probability.
const OUTSIDE: f64 = 0.025;

/// Where the middle of some samples is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// With [`Spread::high`], what the true median lies between, with a probability of 95 %; with fewer than six samples, that is the
    /// least of them.
    pub low: f64,
    /// See [`Spread::low`].
    pub high: f64,
}

impl Spread {
    /// The spread of some samples; `None` of none, or when one is no number.
    ///
    /// How samples are distributed does not matter: whether one lies below the true median is a toss of a coin, so how many do
    /// is distributed binomially.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        if sorted.iter().any(|sample| !sample.is_finite()) {
            return None;
        }
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let cut = left_out(sorted.len());
        let middle = f64::midpoint(sorted[last / 2], sorted[last.div_ceil(2)]);
        Some(Self { median: middle, low: sorted[cut], high: sorted[last - cut] })
    }
}

/// How many of the least, and of the greatest, may be left out.
fn left_out(samples: usize) -> usize {
    // That just so many lie below the true median, and that at most so many do.
    let mut exactly = 0.5_f64.powi(i32::try_from(samples).unwrap_or(i32::MAX));
    let mut at_most = exactly;
    let mut cut = 0;
    while cut < samples / 2 {
        exactly *= (samples - cut) as f64 / (cut + 1) as f64;
        at_most += exactly;
        if at_most > OUTSIDE {
            break;
        }
        cut += 1;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_are_all_kept() {
        for samples in 1..=5 {
            assert_eq!(left_out(samples), 0, "{samples}");
        }
    }

    /// As tables of the sign test have it: of 6 samples none may be left out, of 9 one on each side, of 15 three.
    #[test]
    fn of_many_the_outermost_are_left_out() {
        assert_eq!([6, 8, 9, 11, 12, 15, 20].map(left_out), [0, 0, 1, 1, 2, 3, 5]);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, low: 1.0, high: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
    }
}
