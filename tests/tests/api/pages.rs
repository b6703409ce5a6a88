//! Long lists in pages.

use ioward_model::{AuditEntry, Outcome, State, Step, Verdict, VfOp};
use serde_json::{Value, json};

use crate::{
    problems::is_a_problem,
    support::{Answer, Daemon},
};

/// Where a page says that the next one is.
fn next(page: &Answer) -> Option<String> {
    let link = page.header("link")?;
    Some(link.strip_prefix('<').and_then(|it| it.strip_suffix(">; rel=\"next\"")).unwrap().to_owned())
}

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
        let Some(link) = next(&page) else { break };
        at = link;
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
    for wrong in ["limit=x", "partition=../x", "since=1", "after=x", "after=-1"] {
        is_a_problem(&daemon.send(&format!("GET /v1/audit?{wrong}"), "", ""), 400, "invalid");
    }
}

#[test]
fn the_audit_log_comes_in_pages_and_each_says_where_the_next_one_is() {
    let entry = |partition: &str, time_ms| AuditEntry {
        time_ms,
        partition: partition.parse().unwrap(),
        uid: None,
        request: VfOp::List,
        verdict: Verdict::Granted,
    };
    let log: Vec<_> = (1..=7).map(|time| entry(if time % 3 == 0 { "db" } else { "web" }, time)).collect();
    let daemon = Daemon::start_after(State::default(), &log);
    let read = |from: &str| {
        let (mut at, mut pages) = (from.to_owned(), Vec::new());
        loop {
            let page = daemon.send(&format!("GET {at}"), "", "");
            assert_eq!(page.status, 200, "{page:?}");
            let lines = page.body.lines().map(|line| serde_json::from_str(line).unwrap());
            pages.push(lines.collect::<Vec<Value>>());
            let Some(link) = next(&page) else { return pages };
            at = link;
        }
    };
    let times = |pages: &[Vec<Value>]| {
        let of_page = |page: &Vec<Value>| page.iter().map(|it| it["time_ms"].as_u64().unwrap()).collect();
        pages.iter().map(of_page).collect::<Vec<Vec<u64>>>()
    };
    let pages = read("/v1/audit?after=0&limit=3");
    assert_eq!(times(&pages), [vec![1, 2, 3], vec![4, 5, 6], vec![7]]);
    let numbers: Vec<_> = pages.iter().flatten().map(|entry| entry["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(times(&read(&format!("/v1/audit?after={}", numbers[4]))), [vec![6, 7]], "whoever comes back");
    assert_eq!(times(&read("/v1/audit?after=0&limit=2&partition=db")), [vec![3, 6]]);
    assert_eq!(times(&read("/v1/audit?after=7&limit=2")), [Vec::<u64>::new()], "nothing new");
    let latest = daemon.send("GET /v1/audit?limit=2", "", "");
    assert!(next(&latest).is_none() && !latest.body.contains("number"), "{latest:?}");
}
