//! Many who follow the events at once, as browsers do.

use std::{
    io::{BufRead, BufReader, Write, stdin, stdout},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ioward_benches::{
    growth::LINEAR,
    row::{Role, Row},
    run::Run,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader as AsyncBufReader},
    net::UnixStream,
};

use crate::{
    http,
    process::{Daemon, NEVER, this},
    tree,
};

/// Subscribers.
const SUBSCRIBERS: [usize; 3] = [62, 250, 1_000];
/// Plans without steps that are carried out while they listen: two events each.
const PLANS: usize = 200;

/// How much the daemon may grow by the events that are sent, and those that it keeps.
const GROWS_BY: f64 = 1.1;

/// So many subscribers in this process. Says when all are there; is told the number of the last event, and says how many events were
/// lost once all have it.
pub fn follow(folder: &Path, count: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = Arc::<Told>::default();
    let background = Arc::clone(&told);
    let socket = folder.join(http::SOCKET);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let all: Vec<_> =
                (0..count).map(|_| tokio::spawn(one(socket.clone(), Arc::clone(&background)))).collect();
            for one in all {
                one.await.unwrap();
            }
        });
    });
    wait_until(|| told.there.load(Ordering::Acquire) == count);
    say("there");
    let mut last = String::new();
    stdin().read_line(&mut last).unwrap();
    let last: u64 = last.trim().parse().unwrap();
    told.last.store(last, Ordering::Release);
    wait_until(|| told.done.load(Ordering::Acquire) == count);
    say(&told.lost.load(Ordering::Acquire).to_string());
}

#[derive(Default)]
struct Told {
    there: AtomicUsize,
    done: AtomicUsize,
    lost: AtomicU64,
    /// The number of the last event; 0 while it is not known.
    last: AtomicU64,
}

/// Follows until the last event. Each is to have the number after the one before.
async fn one(socket: PathBuf, told: Arc<Told>) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let request = "GET /v1/events?since=now HTTP/1.1\r\nhost: ioward\r\naccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = AsyncBufReader::new(stream).lines();
    let (mut seen, mut is_there) = (0, false);
    loop {
        let again = tokio::time::timeout(Duration::from_millis(100), lines.next_line()).await;
        let Ok(line) = again else {
            let last = told.last.load(Ordering::Acquire);
            if last > 0 && seen >= last {
                told.done.fetch_add(1, Ordering::AcqRel);
                return;
            }
            continue;
        };
        let line = line.unwrap().unwrap();
        if let Some(latest) = line.strip_prefix("ioward-last-event: ") {
            seen = latest.parse().unwrap();
        } else if line.is_empty() && !is_there {
            is_there = true;
            told.there.fetch_add(1, Ordering::AcqRel);
        } else if let Some(id) = line.strip_prefix("id: ") {
            let number: u64 = id.rsplit_once('-').unwrap().1.parse().unwrap();
            told.lost.fetch_add(number.saturating_sub(seen + 1), Ordering::AcqRel);
            seen = number.max(seen);
        }
    }
}

fn say(what: &str) {
    println!("{what}");
    stdout().flush().unwrap();
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < NEVER, "it takes too long");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// On a host without adapters: each plan looks at the host.
pub fn measure(run: &mut Run) {
    let mut each =
        Row::new("subscribers", "CPU time of the daemon for each event told to a subscriber", "us");
    let mut lost = Row::new("subscribers-lost", "events that did not come", "");
    let mut memory =
        Row::new("subscribers-memory", "the daemon's resident memory before and after events", "MB");
    for (place, count) in SUBSCRIBERS.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        tree::make(folder.path(), 0);
        let daemon = Daemon::start(folder.path());
        let found = told(folder.path(), &daemon, count);
        each = each.with_samples(Role::Ours, format!("{count} subscribers"), vec![found.microseconds]);
        lost = lost.with_samples(Role::Ours, format!("of {} to {count}", found.events), vec![found.lost]);
        lost = lost.at_most(place, 0.0);
        for (when, megabytes) in [("before", found.before), ("after", found.after)] {
            memory = memory.with_samples(Role::Ours, format!("{when}, {count} subscribers"), vec![megabytes]);
        }
        memory = memory.ratio(2 * place + 1, 2 * place, GROWS_BY);
    }
    let sizes = SUBSCRIBERS.iter().enumerate().map(|(place, count)| (*count as f64, place)).collect();
    // For each of them: what all of them take grows by a power that is larger by 1.
    run.row(each.grows("each", "subscribers", sizes, LINEAR - 1.0));
    run.row(lost);
    run.row(memory);
}

/// What was seen of some subscribers.
struct Found {
    events: u64,
    lost: f64,
    microseconds: f64,
    /// The daemon's memory in MB, of a million bytes.
    before: f64,
    after: f64,
}

fn told(folder: &Path, daemon: &Daemon, count: usize) -> Found {
    let wish = json!({"intent": "apply", "spec": {"version": 1}}).to_string();
    let plan: Value = serde_json::from_slice(&http::ask(folder, "POST /v1/plan", &wish).body).unwrap();
    let apply = json!({"plan": plan}).to_string();
    let mut command = this(&["subscribe", folder.to_str().unwrap(), &count.to_string()]);
    let mut subscribers = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(subscribers.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    // What the first events need once is not what it grows by.
    for _ in 0..PLANS / 10 {
        http::ask(folder, "POST /v1/apply", &apply);
    }
    let megabytes = || daemon.memory() as f64 * 1024.0 / 1e6;
    let (first, before, cpu) = (latest(folder), megabytes(), daemon.cpu());
    for _ in 0..PLANS {
        http::ask(folder, "POST /v1/apply", &apply);
    }
    let last = latest(folder);
    writeln!(subscribers.stdin.take().unwrap(), "{last}").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    let (cpu, after) = (daemon.cpu() - cpu, megabytes());
    assert!(subscribers.wait().unwrap().success());
    let events = (last - first) * count as u64;
    Found {
        events,
        lost: line.trim().parse().unwrap(),
        microseconds: cpu.as_secs_f64() * 1e6 / events as f64,
        before,
        after,
    }
}

fn latest(folder: &Path) -> u64 {
    let head = http::ask(folder, "GET /v1/events?since=now", "").head.to_lowercase();
    head.lines().find_map(|line| line.strip_prefix("ioward-last-event: ")).unwrap().parse().unwrap()
}
