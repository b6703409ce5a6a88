//! Long lists in pages.

use ioward_model::{Outcome, State, Step};
use serde_json::{Value, json};

use crate::{problems::is_a_problem, support::Daemon};

#[test]
fn partitions_come_in_pages_and_each_says_where_the_next_one_is() {
    let mut state = State::default();
    for name in ["c", "a", "e", "b", "d"] {
        let to = serde_json::from_value(json!({"name": name, "boot": {"kernel": "/bin/sh"}})).unwrap();
        state.record(&Step::DefinePartition { from: None, to }, &Outcome::default());
    }
    let daemon = Daemon::start_with(state);
    let (mut at, mut names, mut pages) = ("/v1/partitions?limit=2".to_owned(), Vec::new(), 0);
    loop {
        let page = daemon.send(&format!("GET {at}"), "", "");
        assert_eq!(page.status, 200, "{page:?}");
        let of_page: Vec<Value> = serde_json::from_str(&page.body).unwrap();
        names.extend(of_page.iter().map(|partition| partition["name"].as_str().unwrap().to_owned()));
        pages += 1;
        let Some(link) = page.header("link") else { break };
        at = link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\"")).unwrap().to_owned();
    }
    assert_eq!((names.join(""), pages), ("abcde".to_owned(), 3));
    let whole = daemon.send("GET /v1/partitions", "", "");
    assert_eq!((whole.json().as_array().unwrap().len(), whole.header("link")), (5, None));
    for wrong in ["limit=0", "limit=-1", "limit=all", "after=../x", "before=b"] {
        is_a_problem(&daemon.send(&format!("GET /v1/partitions?{wrong}"), "", ""), 400, "invalid");
    }
}

#[test]
fn the_audit_log_is_asked_for_one_partition_and_so_many_entries() {
    let daemon = Daemon::start();
    for query in ["limit=5", "partition=web", "limit=0&partition=web"] {
        assert_eq!(daemon.ask(&format!("GET /v1/audit?{query}"), ""), (200, String::new()), "{query}");
    }
    for wrong in ["limit=x", "partition=../x", "since=1"] {
        is_a_problem(&daemon.send(&format!("GET /v1/audit?{wrong}"), "", ""), 400, "invalid");
    }
}
