//! libvirt's hook, as libvirt runs it: four words, and the definition of the domain on stdin.

use std::{fs::File, path::Path};

use serde_json::json;

use crate::support::{Daemon, Folder, Run, error, ioward, run};

const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

/// A domain with the VF at 0000:01:10.0, under this alias if any.
fn with_vf(alias: &str) -> String {
    domain(&format!(
        "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x0000' bus='0x01' slot='0x10' \
         function='0x0'/></source>{alias}</hostdev>"
    ))
}

fn domain(devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>web</name><uuid>{UUID}</uuid><memory>1</memory><devices>{devices}</devices></domain>"
    )
}

const OURS: &str = "<alias name='ua-ioward-net0'/>";

fn hook(socket: &Path, words: [&str; 2], definition: &str) -> Run {
    let folder = Folder::new();
    let stdin = File::open(folder.file("web.xml", definition)).unwrap();
    let [operation, part] = words;
    let words = ["libvirt-hook", "--within", "3", "--", "-web", operation, part, "-"];
    run(ioward(socket, &words).stdin(stdin))
}

const START: [&str; 2] = ["prepare", "begin"];

#[test]
fn a_domain_with_a_vf_starts_once_the_daemon_says_that_it_is_ready() {
    let daemon = Daemon::with("200 OK", json!({"partition": "shop", "vfs": ["net0"]}));
    for _ in 0..2 {
        let run = hook(&daemon.socket(), START, &with_vf(OURS));
        assert_eq!((run.status, run.stdout.as_str(), run.stderr.as_str()), (0, "", ""));
    }
    let [asked, again] = &daemon.requests()[..] else { panic!("{:?}", daemon.requests()) };
    assert_eq!(asked.route, format!("POST /v1/domains/{UUID}/prepare"));
    assert_eq!(asked.body["name"], "web");
    assert_eq!(asked.body["functions"], json!([{"address": "0000:01:10.0", "vf": "net0"}]));
    assert_eq!(asked.body["functions"], again.body["functions"]);
}

#[test]
fn a_no_of_the_daemon_keeps_the_domain_from_starting_whoever_gave_the_vf() {
    let reasons = json!([{"rule": "vf-ready", "request": "shop/net0", "function": "0000:01:10.0",
        "required": "it ready for the start of its domain", "found": "0000:01:00.0 is not there", "remedy": "put it back"}]);
    let daemon = Daemon::with("409 Conflict", error("refused", "refused: rules are not met", reasons));
    for definition in [with_vf(OURS), with_vf("")] {
        let run = hook(&daemon.socket(), START, &definition);
        assert_eq!(run.status, 3);
        assert!(run.stderr.contains("0000:01:00.0 is not there; put it back"), "{}", run.stderr);
    }
}

#[test]
fn without_a_daemon_a_domain_with_a_vf_of_iowards_is_refused_with_what_to_do() {
    let folder = Folder::new();
    let run = hook(&folder.path().join("api.sock"), START, &with_vf(OURS));
    assert_eq!(run.status, 3);
    assert!(run.stdout.is_empty() && run.stderr.lines().count() == 1, "{}", run.stderr);
    for words in ["domain web", "net0", "ioward is not running: systemctl start ioward", "virsh edit web"] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
}

#[test]
fn without_a_daemon_all_other_domains_start() {
    let folder = Folder::new();
    let socket = folder.path().join("api.sock");
    for definition in [domain(""), with_vf(""), "no XML".to_owned(), String::new()] {
        let run = hook(&socket, START, &definition);
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{definition}");
    }
}

#[test]
fn a_daemon_that_breaks_off_or_knows_no_such_question_keeps_only_domains_with_its_vfs() {
    let broken = || Daemon::new(|_, _| {});
    let older = || Daemon::with("404 Not Found", error("not-found", "there is no such route", json!([])));
    for daemon in [broken(), older()] {
        let refused = hook(&daemon.socket(), START, &with_vf(OURS));
        assert!(refused.status == 3 && refused.stderr.contains("virsh edit web"), "{}", refused.stderr);
        let started = hook(&daemon.socket(), START, &with_vf(""));
        assert_eq!((started.status, started.stderr.as_str()), (0, ""));
    }
}

#[test]
fn nobody_is_asked_for_anything_but_a_start() {
    let daemon = Daemon::with("409 Conflict", error("refused", "no", json!([])));
    for words in
        [["start", "begin"], ["started", "begin"], ["stopped", "end"], ["release", "end"], ["prepare", "end"]]
    {
        assert_eq!(hook(&daemon.socket(), words, &with_vf(OURS)).status, 0, "{words:?}");
    }
    assert_eq!(hook(&daemon.socket(), START, &domain("")).status, 0, "it has no PCI function of the host's");
    assert!(daemon.requests().is_empty());
}
