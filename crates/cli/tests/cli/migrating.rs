//! `ioward migrate` between two embedded machines, each with a daemon of its own.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;

use crate::{certificates::Authority, served::Served, support::ioward, ui_remote::Files};

const WEB: &str = r#"version = 1
[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network", pf = "0000:01:00.0", vlan = 5 }]
"#;

fn state(served: &Served) -> Value {
    let exported: Value = serde_json::from_str(&served.run(&["state", "export"]).stdout).unwrap();
    exported["state"].clone()
}

#[test]
fn a_machine_moves_to_another_host_with_what_is_asked_for_its_vfs_and_back() {
    let (here, there) = (Served::start(WEB), Served::start("version = 1\n"));
    let to = there.socket();
    let to = to.to_str().unwrap();
    let shown = here.run(&["migrate", "web", "--to", to, "--dry-run"]);
    assert!(shown.stdout.contains("net0"), "{}{}", shown.stdout, shown.stderr);
    let unasked = here.run(&["migrate", "web", "--to", to]);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    assert!(state(&here)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);

    let moved = here.run(&["migrate", "web", "--to", to, "--yes"]);
    assert_eq!(moved.status, 0, "{}{}", moved.stdout, moved.stderr);
    assert!(moved.stdout.contains("web runs on the other host"), "{}", moved.stdout);
    let (left, came) = (state(&here), state(&there));
    assert!(left["partitions"].as_object().unwrap().is_empty() && left.get("moves").is_none(), "{left}");
    let web = &came["partitions"]["web"];
    assert!(web["running"] == true && web["vfs"]["net0"]["attached"] == true, "{came}");
    assert_eq!(web["vfs"]["net0"]["settings"]["vlan"], 5);
    assert!(there.run(&["partitions"]).stdout.contains("running"));

    let back = there.run(&["migrate", "web", "--to", here.socket().to_str().unwrap(), "--yes", "--json"]);
    let said: Value = serde_json::from_str(back.stdout.lines().last().unwrap()).unwrap();
    assert!(said["moved"] == true && said["partition"] == "web", "{said}");
    assert!(here.run(&["partitions"]).stdout.contains("running"));
}

const TWO: &str = r#"version = 1
[[partition]]
name = "db"
boot = { kernel = "kernel" }
vf = [{ name = "disk0", class = "nvme" }]

[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network" }]
"#;

#[test]
fn a_host_is_emptied_as_far_as_the_other_one_has_room() {
    let only_db = TWO.split("[[partition]]\nname = \"web\"").next().unwrap();
    let (here, there) = (Served::start(TWO), Served::start(only_db));
    let to = there.socket();
    let some = here.run(&["evacuate", "--host", "--to", to.to_str().unwrap(), "--yes"]);
    assert_eq!(some.status, 1, "{}", some.stdout);
    assert!(some.stderr.contains("host: db: the other host has a partition db already"), "{}", some.stderr);
    let (left, came) = (state(&here), state(&there));
    let names = |state: &Value| state["partitions"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        (names(&left), names(&came)),
        (vec!["db".to_owned()], vec!["db".to_owned(), "web".to_owned()])
    );
    assert!(left["partitions"]["db"]["running"] == true && came["partitions"]["web"]["running"] == true);
    let gone = there.run(&["remove", "db", "--yes"]);
    assert_eq!(gone.status, 0, "{}", gone.stderr);
    let all = here.run(&["evacuate", "--host", "--to", to.to_str().unwrap(), "--yes"]);
    assert_eq!(all.status, 0, "{}", all.stderr);
    assert!(names(&state(&here)).is_empty());
}

#[test]
fn a_host_that_can_not_take_it_in_is_told_before_anything_is_done() {
    let (here, full) = (Served::start(WEB), Served::start(WEB));
    let to = full.socket();
    let refused = here.run(&["migrate", "web", "--to", to.to_str().unwrap(), "--yes"]);
    assert!(
        refused.status != 0 && refused.stderr.contains("has a partition web already"),
        "{}",
        refused.stderr
    );
    assert!(state(&here)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);
    let nobody = here.run(&["migrate", "web", "--to", "/nowhere.sock", "--yes"]);
    assert!(nobody.stderr.contains("/nowhere.sock"), "{}", nobody.stderr);
    let unknown = here.run(&["migrate", "db", "--to", to.to_str().unwrap(), "--yes"]);
    assert!(unknown.stderr.contains("there is no partition db"), "{}", unknown.stderr);
    let nothing = here.run(&["migrate", "web", "--accept"]);
    assert!(
        nothing.status != 0 && nothing.stderr.contains("waits for its source's word"),
        "{}",
        nothing.stderr
    );
}

/// The other host is reached as its page is: by mutual TLS.
#[test]
fn two_hosts_know_each_other_by_their_certificates() {
    let (here, there) = (Served::start(WEB), Served::start("version = 1\n"));
    let (theirs, ours) = (Authority::new("there"), Authority::new("here"));
    let page = Files::new(&theirs.page(), &ours.pem);
    let mut page = ioward(&there.socket(), &["ui"])
        .args(page.arguments("127.0.0.1:0"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(|child| (child, page))
        .unwrap();
    let link = BufReader::new(page.0.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let port = link.trim_end_matches('/').rsplit(':').next().unwrap();
    let to = format!("https://127.0.0.1:{port}");
    let migrate = |who: &Authority, taken: &Authority| {
        let files = Files::new(&who.user("here.example"), &taken.pem);
        let arguments = files.arguments("");
        let with: Vec<&str> =
            arguments[2..].iter().map(|it| if it == "--client-ca" { "--server-ca" } else { it }).collect();
        here.run(&[&["migrate", "web", "--to", &to, "--yes"], &with[..]].concat())
    };
    let stranger = migrate(&theirs, &theirs);
    assert!(stranger.status == 1 && stranger.stderr.contains(&to), "{}", stranger.stderr);
    let deceived = migrate(&ours, &ours);
    assert!(deceived.stderr.contains("CA"), "{}", deceived.stderr);
    let bare = here.run(&["migrate", "web", "--to", &to, "--yes"]);
    assert!(bare.stderr.contains("give --tls-cert, --tls-key and --server-ca"), "{}", bare.stderr);
    assert!(state(&here)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);

    let moved = migrate(&ours, &theirs);
    assert_eq!(moved.status, 0, "{}{}", moved.stdout, moved.stderr);
    assert!(state(&there)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);
    page.0.kill().unwrap();
    page.0.wait().unwrap();
}

/// Whoever carried may have been killed after the partition was given away, and before the other host heard of that.
#[test]
fn a_move_that_is_decided_is_carried_to_its_end_by_the_same_command() {
    let (here, there) = (Served::start(WEB), Served::start("version = 1\n"));
    let gone = here.run(&["detach", "web", "net0", "--yes"]);
    assert_eq!(gone.status, 0, "{}", gone.stderr);
    let id = "0123456789abcdef0123456789abcdef";
    let vfs = [serde_json::json!({"name": "net0", "class": "network", "pf": "0000:01:00.0"})];
    let begin = serde_json::json!({"id": id, "partition": "web", "to": "there", "vfs": vfs});
    let moved = here.ask("POST /v1/moves", &begin);
    let (mut to_source, mut is_carried) = (serde_json::json!([]), false);
    let given = loop {
        let said = serde_json::json!({"messages": to_source});
        let leaving = here.ask(&format!("POST /v1/moves/{id}/source"), &said);
        if leaving["is_given"] == true {
            break leaving;
        }
        let offer = serde_json::json!({"partition": moved, "source": "here"});
        let told = serde_json::json!({"messages": leaving["messages"], "offer": offer});
        to_source = there.ask(&format!("POST /v1/moves/{id}/target"), &told)["messages"].take();
        is_carried = is_carried || there.carry_state(&here, id);
    };
    assert!(given["is_over"] == false, "{given}");
    assert!(state(&here)["partitions"].as_object().unwrap().is_empty());
    assert!(state(&there)["partitions"].as_object().unwrap().is_empty());
    // Its VF is kept for it meanwhile.
    let all = there.run(&["assign", "web", "--class", "network", "--pf", "0000:01:00.0", "--count", "8"]);
    assert!(all.status != 0, "{}", all.stdout);

    let to = there.socket();
    let again = here.run(&["migrate", "web", "--to", to.to_str().unwrap(), "--yes"]);
    assert_eq!(again.status, 0, "{}", again.stderr);
    let came = state(&there);
    let web = &came["partitions"]["web"];
    assert!(web["running"] == true && web["vfs"]["net0"]["attached"] == true, "{came}");
    assert!(state(&here).get("moves").is_none());
}
