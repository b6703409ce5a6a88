//! How figures grow with the size of what is measured: the power of the size, as a straight line through the logarithms of both.

/// What an exponent may be at most of what is to be linear: figures have a spread, and memory has caches.
pub const LINEAR: f64 = 1.2;

/// The exponent of growth: the slope of the line of least squares through the logarithms of sizes and figures. 1 is linear, 0 does not grow.
/// `None` with fewer than two sizes, and where a size or a figure is not above 0.
#[must_use]
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let is_usable = |value: f64| value.is_finite() && value > 0.0;
    if points.iter().any(|(size, figure)| !is_usable(*size) || !is_usable(*figure)) {
        return None;
    }
    let logs: Vec<(f64, f64)> = points.iter().map(|(size, figure)| (size.ln(), figure.ln())).collect();
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / logs.len() as f64;
    let (size, figure) = (mean(|log| log.0), mean(|log| log.1));
    let across: f64 = logs.iter().map(|log| (log.0 - size).powi(2)).sum();
    let along: f64 = logs.iter().map(|log| (log.0 - size) * (log.1 - figure)).sum();
    // Of one size alone, and of none.
    (across > 0.0).then(|| along / across)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grown(points: &[(f64, f64)]) -> f64 {
        exponent(points).unwrap()
    }

    #[test]
    fn a_power_is_found_again() {
        for power in [0.0, 0.5, 1.0, 1.25, 2.0] {
            let points = [1.0_f64, 4.0, 16.0].map(|size| (size, 3.0 * size.powf(power)));
            assert!((grown(&points) - power).abs() < 1e-9, "{power}");
        }
    }

    /// Of four figures, the first and the last alone would say 1: those in between count, too.
    #[test]
    fn all_figures_count() {
        let found = grown(&[(1.0, 1.0), (2.0, 4.0), (4.0, 8.0), (8.0, 8.0)]);
        assert!((found - 1.0).abs() < 0.001, "{found}");
        let found = grown(&[(1.0, 1.0), (4.0, 4.0), (16.0, 32.0)]);
        assert!((found - 1.25).abs() < 1e-9, "{found}");
    }

    #[test]
    fn what_has_no_exponent_is_given_none() {
        assert_eq!(exponent(&[]), None);
        assert_eq!(exponent(&[(7.0, 1.0)]), None);
        assert_eq!(exponent(&[(7.0, 1.0), (7.0, 2.0)]), None, "one size");
        assert_eq!(exponent(&[(0.0, 1.0), (7.0, 2.0)]), None);
        assert_eq!(exponent(&[(1.0, 1.0), (7.0, f64::NAN)]), None);
    }
}
