//! What a single failure would do: `host --risks` and `plan --what-if`, on the embedded machine.

use serde_json::Value;

use crate::served::Served;

/// web has one port of the two-port adapter at 0000:02:00.
const ONE_PORT: &str = r#"version = 1

[[partition]]
name = "web"
boot = { kernel = "kernel" }

[[partition.vf]]
name = "net0"
class = "network"
pf = "0000:02:00.0"
"#;

#[test]
fn a_plan_says_whom_a_failure_would_cut_off_once_it_is_carried_out() {
    let served = Served::start(ONE_PORT);
    let shown = served.run(&["host", "--risks"]);
    let expected = "\
a single failure would cut off web

0000:02:00.0 fails:
  cuts off web from the network
  takes web/net0
";
    assert_eq!((shown.status, shown.stdout.as_str()), (0, expected));
    let json: Value = serde_json::from_str(&served.run(&["host", "--risks", "--json"]).stdout).unwrap();
    assert_eq!(json[0]["cuts_off"][0]["partition"], "web");

    // Its other port helps against a link that goes, and not against the adapter.
    let second = "\n[[partition.vf]]\nname = \"net1\"\nclass = \"network\"\npf = \"0000:02:00.1\"\n";
    let spec = served.folder().file("second.toml", served.run(&["spec"]).stdout + second);
    let plan = ["plan", "--file", spec.to_str().unwrap(), "--what-if"];
    let shown = served.run(&[&plan[..], &["0000:02:00.0"]].concat());
    let expected = "
0000:02:00.0 fails:
  takes web/net0
the whole adapter of 0000:02:00.0, 0000:02:00.1 fails:
  cuts off web from the network
  takes web/net0, web/net1
";
    assert!(
        shown.stdout.ends_with(expected) && shown.stdout.contains("web/net1"),
        "{} {}",
        shown.stdout,
        shown.stderr
    );

    let unknown = served.run(&[&plan[..], &["enp9s0"]].concat());
    assert!(unknown.status == 1 && unknown.stderr.contains("'ioward host' lists them"), "{}", unknown.stderr);
    assert_eq!(unknown.stdout, "", "it is said before a plan is made");
}
