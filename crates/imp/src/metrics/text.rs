//! The text format of Prometheus, version 0.0.4: a page of samples, family by family.

use std::{collections::BTreeMap, fmt::Write};

use super::families::{ALL, Family};

/// Samples on their way to a page.
#[derive(Default)]
pub(super) struct Page(BTreeMap<&'static str, String>);

impl Page {
    /// A sample. The values of its labels are in the order of the family's.
    pub(super) fn add(&mut self, family: &Family, labels: &[&str], value: impl Into<f64>) {
        let labels: Vec<_> = family.labels.iter().copied().zip(labels.iter().copied()).collect();
        self.line(family, "", &labels, value.into());
    }

    /// A count. Beyond 2^53 it is rounded, as Prometheus rounds it.
    pub(super) fn count(&mut self, family: &Family, labels: &[&str], value: u64) {
        self.add(family, labels, rounded(value));
    }

    /// A histogram: for each upper bound how many were at most that, then how many there were, and their sum.
    pub(super) fn histogram(
        &mut self,
        family: &Family,
        labels: &[&str],
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let mut labels: Vec<_> = family.labels.iter().copied().zip(labels.iter().copied()).collect();
        for (bound, at_most) in buckets {
            let bound = bound.to_string();
            let mut labels = labels.clone();
            labels.push(("le", &bound));
            self.line(family, "_bucket", &labels, rounded(at_most));
        }
        labels.push(("le", "+Inf"));
        self.line(family, "_bucket", &labels, rounded(count));
        labels.pop();
        self.line(family, "_sum", &labels, sum);
        self.line(family, "_count", &labels, rounded(count));
    }

    fn line(&mut self, family: &Family, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let lines = self.0.entry(family.name).or_default();
        lines.push_str(family.name);
        lines.push_str(suffix);
        for (n, (name, value)) in labels.iter().enumerate() {
            // Nothing can go wrong in a string.
            let _ = write!(lines, "{}{name}=\"{}\"", if n == 0 { '{' } else { ',' }, escaped(value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(lines, "{end} {value}");
    }

    /// The page; a family without samples is not on it.
    pub(super) fn finish(mut self) -> String {
        let mut page = String::new();
        for Family { name, kind, help, .. } in ALL {
            if let Some(lines) = self.0.remove(name) {
                let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {}\n{lines}", kind.as_str());
            }
        }
        page
    }
}

#[expect(clippy::cast_precision_loss, reason = "the format has floating point numbers only")]
fn rounded(count: u64) -> f64 {
    count as f64
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{super::families::*, *};

    #[test]
    fn a_page_has_each_family_once_and_nothing_breaks_out_of_a_label() {
        let mut page = Page::default();
        page.count(&PLANS, &["done"], 3);
        page.count(&REVISION, &[], 7);
        page.count(&PLANS, &["a\"b\\c\nd"], 1);
        page.histogram(&STEPS, &["assign", "done"], [(0.1, 1), (1.0, 2)].into_iter(), 3, 4.5);
        let expected = r#"# HELP ioward_state_revision Revision of the state.
# TYPE ioward_state_revision gauge
ioward_state_revision 7
# HELP ioward_plans_total Plans of users that have ended.
# TYPE ioward_plans_total counter
ioward_plans_total{outcome="done"} 3
ioward_plans_total{outcome="a\"b\\c\nd"} 1
# HELP ioward_step_duration_seconds How long steps of plans and repairs took.
# TYPE ioward_step_duration_seconds histogram
ioward_step_duration_seconds_bucket{step="assign",outcome="done",le="0.1"} 1
ioward_step_duration_seconds_bucket{step="assign",outcome="done",le="1"} 2
ioward_step_duration_seconds_bucket{step="assign",outcome="done",le="+Inf"} 3
ioward_step_duration_seconds_sum{step="assign",outcome="done"} 4.5
ioward_step_duration_seconds_count{step="assign",outcome="done"} 3
"#;
        assert_eq!(page.finish(), expected);
    }
}
