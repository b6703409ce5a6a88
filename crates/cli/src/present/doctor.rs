//! The doctor's findings (`ioward doctor`).

use ioward_fabric::linux::doctor::{Finding, Verdict};

use super::text;

/// A line for each finding, with what to do below it; what it comes to at the end.
#[must_use]
pub fn findings(findings: &[Finding], width: usize) -> String {
    let mut out = String::new();
    for finding in findings {
        let sign = match finding.verdict {
            Verdict::Well => '✓',
            Verdict::Warning => '!',
            Verdict::Missing => '✗',
        };
        let function = finding.function.map(|function| format!(" {function}")).unwrap_or_default();
        let line = format!("{sign} {}{function}: {}", finding.check, finding.found);
        out += &text::wrap(&line, width, "", "  ");
        if !finding.remedy.is_empty() {
            out += &text::wrap(&finding.remedy, width, "    to do: ", "    ");
        }
    }
    if findings.iter().all(|finding| finding.verdict != Verdict::Missing) {
        out += "this host can give VFs to partitions\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use ioward_fabric::linux::doctor::Check;

    use super::*;

    #[test]
    fn what_to_do_stands_below_what_is_amiss() {
        let finding = |check, verdict, found: &str, remedy: &str| Finding {
            check,
            function: None,
            verdict,
            found: found.to_owned(),
            remedy: remedy.to_owned(),
        };
        let well = finding(Check::Iommu, Verdict::Well, "it is on", "");
        let adapter = Finding {
            function: Some("0000:01:00.0".parse().unwrap()),
            ..finding(
                Check::Adapter,
                Verdict::Warning,
                "82576: its driver pci-stub makes no VFs",
                "give it back",
            )
        };
        let kvm = finding(Check::Kvm, Verdict::Missing, "there is no /dev/kvm", "modprobe kvm_amd");
        let all = [well, adapter, kvm];
        let expected = "\
✓ IOMMU: it is on
! SR-IOV adapter 0000:01:00.0: 82576: its driver
  pci-stub makes no VFs
    to do: give it back
✗ KVM: there is no /dev/kvm
    to do: modprobe kvm_amd
";
        assert_eq!(findings(&all, 50), expected);
        assert!(findings(&all[..2], 50).ends_with("\nthis host can give VFs to partitions\n"));
    }
}
