//! `ioward failover` on the embedded machine, and what shows which VF is active.

use crate::served::Served;

fn served() -> Served {
    Served::start(
        r#"version = 1
[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [
  { name = "net0", class = "network", failover = { standby = "net0-b" } },
  { name = "net0-b", class = "network" },
]
"#,
    )
}

#[test]
fn a_person_has_the_standby_active_and_the_vf_itself_again() {
    let served = served();
    let shown = served.run(&["failover", "web/net0", "--dry-run"]);
    assert!(shown.stdout.contains("~ net0: its standby is active"), "{}", shown.stdout);
    assert!(shown.stdout.contains("disturbs nobody"), "{}", shown.stdout);

    let done = served.run(&["failover", "web/net0"]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    let partitions = served.run(&["partitions"]).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(partitions.contains("failed over to net0-b: asked for"), "{partitions}");
    assert!(partitions.contains("standby of net0, and active"), "{partitions}");
    let again = served.run(&["failover", "web/net0"]);
    assert!(again.status == 0 && again.stdout.contains("nothing to do"), "{}{}", again.stdout, again.stderr);

    assert_eq!(served.run(&["failover", "web/net0", "--back"]).status, 0);
    let partitions = served.run(&["partitions"]).stdout;
    assert!(partitions.contains("net0-b is its standby"), "{partitions}");
    let alone = served.run(&["failover", "net0"]);
    assert_eq!(alone.status, 2);
    assert!(alone.stderr.contains("named with its partition, as web/net0"), "{}", alone.stderr);
    let refused = served.run(&["failover", "web/net0-b"]);
    assert_eq!(refused.status, 3);
    assert!(refused.stderr.contains("it is the standby of web/net0"), "{}", refused.stderr);
    let risks = served.run(&["host", "--risks"]).stdout;
    assert!(risks.contains("no failure of a single port or adapter cuts a partition off"), "{risks}");
}

#[test]
fn a_standby_that_is_none_is_told_with_its_place() {
    let served = served();
    let wrong = served.folder().file(
        "wrong.toml",
        "version = 1\n[[partition]]\nname = \"db\"\nboot = { kernel = \"kernel\" }\n[[partition.vf]]\nname = \"net0\"\n\
         class = \"network\"\nfailover = { standby = \"net9\" }\n",
    );
    let refused = served.run(&["plan", "-f", wrong.to_str().unwrap()]);
    assert_eq!(refused.status, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("db has no VF 'net9'") && refused.stderr.contains("line 8"),
        "{}",
        refused.stderr
    );
}
