//! The page holds what docs/metrics.md says and the dashboard shows; an adapter that hangs keeps nobody waiting.

use std::{collections::BTreeSet, fs, path::Path};

use async_trait::async_trait;
use ioward_fabric::FabricError;
use ioward_model::VfSettings;
use ioward_pci::Bdf;
use tokio::sync::{mpsc, watch};

use super::{
    families::{ALL, Kind},
    *,
};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

#[test]
fn each_metric_is_described_with_its_kind_and_labels() {
    let described = file("docs/metrics.md");
    let rows: Vec<_> = described.lines().filter(|line| line.starts_with("| `ioward_")).collect();
    let expected: Vec<_> = ALL
        .iter()
        .map(|family| {
            let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} |", family.name, family.kind.as_str(), labels.join(", "))
        })
        .collect();
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row.starts_with(&expected.replace("|  |", "| |")), "{row}\nis not\n{expected}");
    }
    assert_eq!(rows.len(), expected.len());
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let dashboard = file("packaging/grafana/ioward.json");
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<_> =
        dashboard.split(|c| !is_of_a_name(c)).filter(|w| w.starts_with("ioward_")).collect();
    let mut known = BTreeSet::new();
    for family in ALL {
        match family.kind {
            Kind::Histogram => {
                known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", family.name)));
            }
            Kind::Counter | Kind::Gauge => _ = known.insert(family.name.to_owned()),
        }
    }
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        assert!(known.contains(word), "there is no metric {word}");
    }
}

/// Two adapters; the one at 0000:02:00.0 answers once the gate is open.
struct Adapters(watch::Receiver<bool>);

fn vf(pf: &str) -> VfId {
    VfId { pf: pf.parse().unwrap(), index: 0 }
}

#[async_trait]
impl Fabric for Adapters {
    async fn statistics(&self, asked: VfId) -> Result<VfStatistics, FabricError> {
        if asked == vf("0000:02:00.0") {
            self.0.clone().wait_for(|is_open| *is_open).await.unwrap();
        }
        Ok(VfStatistics { rx_bytes: 7, ..VfStatistics::default() })
    }

    async fn identify(&self) -> Result<Inventory, FabricError> {
        unreachable!()
    }

    async fn set_autoprobe(&self, _: Bdf, _: bool) -> Result<(), FabricError> {
        unreachable!()
    }

    async fn set_vf_count(&self, _: Bdf, _: u16) -> Result<(), FabricError> {
        unreachable!()
    }

    async fn recover(&self, _: Bdf, _: ioward_model::Recovery) -> Result<(), FabricError> {
        unreachable!()
    }

    async fn vf_address(&self, _: VfId) -> Result<Bdf, FabricError> {
        unreachable!()
    }

    async fn driver(&self, _: VfId) -> Result<Option<String>, FabricError> {
        unreachable!()
    }

    async fn bind(&self, _: VfId, _: Option<&str>) -> Result<Option<String>, FabricError> {
        unreachable!()
    }

    async fn reset(&self, _: VfId) -> Result<(), FabricError> {
        unreachable!()
    }

    async fn settings(&self, _: VfId) -> Result<VfSettings, FabricError> {
        unreachable!()
    }

    async fn configure(&self, _: VfId, _: &VfSettings) -> Result<(), FabricError> {
        unreachable!()
    }

    async fn is_open(&self, _: VfId) -> Result<bool, FabricError> {
        unreachable!()
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        unreachable!()
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_hangs_is_left_out_until_it_answers_and_is_asked_once() {
    let (gate, is_open) = watch::channel(false);
    let traffic = Traffic::new(Arc::new(Adapters(is_open)));
    let vfs = [vf("0000:01:00.0"), vf("0000:02:00.0")];
    for _ in 0..3 {
        let read = traffic.read(vfs.into_iter(), PATIENCE).await;
        assert_eq!(read.keys().copied().collect::<Vec<_>>(), [vfs[0]]);
    }
    assert_eq!(gate.receiver_count(), 2, "one waits, for all three");
    gate.send(true).unwrap();
    // What was asked for before it answered is over by now.
    tokio::time::sleep(PATIENCE).await;
    let read = traffic.read(vfs.into_iter(), PATIENCE).await;
    assert_eq!((read.len(), read[&vfs[1]].rx_bytes), (2, 7));
    let of_one = traffic.read(vfs.into_iter().take(1), PATIENCE).await;
    assert_eq!(of_one.len(), 1, "and one that nobody holds any more is forgotten");
}

#[test]
fn counts_have_the_labels_that_tell_them_apart() {
    use crate::operations::Asker;
    let counters = Counters::default();
    let op = ioward_model::VfOp::List;
    let user = Asker::User { uid: 1000, vf: vf("0000:01:00.0") };
    counters.operation(Asker::Partition, &op, &ioward_model::Verdict::Refused("no".into()));
    counters.operation(user, &op, &ioward_model::Verdict::Granted);
    counters.operation(user, &op, &ioward_model::Verdict::Granted);
    counters.event(&ioward_model::EventKind::PlanFailed { plan: 1, error: "no".into(), undone: true });
    let reset = ioward_model::Step::ResetVf { vf: vf("0000:01:00.0") };
    counters.step(&reset, true, Duration::from_millis(300));
    counters.step(&reset, true, Duration::from_secs(500));
    let mut page = Page::default();
    counters.print(&mut page);
    let page = page.finish();
    for line in [
        r#"ioward_vf_operations_total{op="list",outcome="granted",asker="user"} 2"#,
        r#"ioward_vf_operations_total{op="list",outcome="refused",asker="partition"} 1"#,
        r#"ioward_plans_total{outcome="done"} 0"#,
        r#"ioward_plans_total{outcome="rolled-back"} 1"#,
        r#"ioward_step_duration_seconds_bucket{step="reset-vf",outcome="done",le="0.1"} 0"#,
        r#"ioward_step_duration_seconds_bucket{step="reset-vf",outcome="done",le="0.5"} 1"#,
        r#"ioward_step_duration_seconds_bucket{step="reset-vf",outcome="done",le="120"} 1"#,
        r#"ioward_step_duration_seconds_bucket{step="reset-vf",outcome="done",le="+Inf"} 2"#,
        r#"ioward_step_duration_seconds_count{step="reset-vf",outcome="done"} 2"#,
    ] {
        assert!(page.lines().any(|printed| printed == line), "{line} is not in\n{page}");
    }
}
