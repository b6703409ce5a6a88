//! Who is at the other end of a real socket; the table of roles itself is tested beside the router (`imp/src/http/tests.rs`).

use std::{fs, os::unix::fs::PermissionsExt, os::unix::net::UnixStream, thread};

use rustix::{
    fs::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde_json::json;

use crate::{problems::is_a_problem, support::Daemon};

/// A user that belongs to nobody, and is in no group.
const NOBODY: u32 = 65_534;

#[test]
fn the_user_who_runs_the_daemon_is_an_administrator() {
    let daemon = Daemon::start();
    let uid = rustix::process::geteuid().as_raw();
    let answer = daemon.send("GET /v1/whoami", "", "");
    assert_eq!((answer.status, answer.json()), (200, json!({"uid": uid, "role": "administrator"})));
}

/// Runs something on a thread that is another user; takes root, as `cargo xtask test` has it.
fn as_nobody<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let become_nobody = || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            become_nobody();
            act()
        });
        other.join().unwrap()
    })
}

#[test]
fn a_user_without_a_role_gets_nothing_and_holds_nobody_up() {
    let daemon = Daemon::start();
    fs::set_permissions(daemon.socket.parent().unwrap(), fs::Permissions::from_mode(0o711)).unwrap();
    let answer = as_nobody(|| daemon.send("GET /v1/host", "", ""));
    is_a_problem(&answer, 403, "forbidden");
    assert!(
        answer.body.contains("user 65534") && answer.body.contains("usermod -aG ioward-view"),
        "{answer:?}"
    );
    assert_eq!(answer.header("connection"), Some("close"));

    let mut silent: Vec<UnixStream> =
        as_nobody(|| (0..1_000).map_while(|_| UnixStream::connect(&daemon.socket).ok()).collect());
    assert!(silent.len() > 64, "{}", silent.len());
    // Those that are too many are told so without being asked anything.
    let last = silent.last_mut().unwrap();
    let mut told = String::new();
    std::io::Read::read_to_string(last, &mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 423 "), "{told}");
    assert_eq!(daemon.send("GET /v1/host", "", "").status, 200, "nobody else is held up");
}
