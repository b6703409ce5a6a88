//! The other end of the socket: absent, foreign, broken, or saying no.

use std::io::Write;

use serde_json::json;

use crate::support::{Daemon, Folder, data, error, ioward, run, send_head};

#[test]
fn no_daemon_says_how_to_start_one() {
    let folder = Folder::new();
    let socket = folder.path().join("api.sock");
    for arguments in
        [&["host"][..], &["vfs"], &["partitions"], &["start", "web"], &["events"], &["console", "web"]]
    {
        let run = run(&mut ioward(&socket, arguments));
        let expected = format!(
            "ioward: cannot reach the daemon at {}: No such file or directory; start it with: ioward serve\n",
            socket.display()
        );
        assert_eq!((run.status, run.stderr), (1, expected), "{arguments:?}");
    }
    let file = folder.file("left-behind", "");
    assert!(
        run(&mut ioward(&file, &["host"])).stderr.contains("Connection refused; start it with: ioward serve")
    );
}

#[test]
fn the_socket_is_taken_from_the_command_line_first() {
    let daemon = Daemon::with("200 OK", data("inventory.json"));
    let socket = daemon.socket();
    let run = run(&mut ioward("/nonexistent".as_ref(), &["host", "--socket", socket.to_str().unwrap()]));
    assert_eq!(run.status, 0, "{}", run.stderr);
}

#[test]
fn a_refusal_prints_its_reasons_and_exits_with_3() {
    let reasons = json!([
        {"rule": "management-nic", "function": "0000:02:00.0", "required": "a PF that the host does not use",
         "found": "the default route leaves through eth2", "remedy": "use --allow-management-nic"},
        {"rule": "vf-capacity", "request": "web/net0", "required": "1 VF", "found": "0 free"}
    ]);
    let daemon = Daemon::with("409 Conflict", error("refused", "this cannot be done on this host", reasons));
    let run = daemon.run(&["start", "web"]);
    let expected = "\
ioward: this cannot be done on this host
  management-nic: 0000:02:00.0: required a PF that the host does not use; found the default route leaves through eth2; use --allow-management-nic
  vf-capacity: web/net0: required 1 VF; found 0 free
";
    assert_eq!((run.status, run.stderr.as_str()), (3, expected));
}

#[test]
fn the_exit_status_follows_from_the_kind_of_no() {
    for (kind, http, status) in [
        ("invalid", "400 Bad Request", 2),
        ("busy", "423 Locked", 1),
        ("not-found", "404 Not Found", 1),
        ("failed", "500 Internal Server Error", 1),
    ] {
        let run = Daemon::with(http, error(kind, "no: because", json!([]))).run(&["partitions"]);
        assert_eq!((run.status, run.stderr.as_str()), (status, "ioward: no: because\n"), "{kind}");
    }
}

#[test]
fn nonsense_is_told_as_such() {
    let foreign =
        Daemon::new(|_, stream| stream.write_all(b"220 mail.example.org ESMTP\r\n").unwrap()).run(&["host"]);
    assert_eq!(foreign.status, 1);
    assert!(foreign.stderr.contains("is it ioward that listens there?"), "{}", foreign.stderr);

    let silent = Daemon::new(|_, _| {}).run(&["host"]);
    assert!(silent.status == 1 && silent.stderr.contains("broke off"), "{}", silent.stderr);

    let wrong_form = Daemon::with("200 OK", json!({"generation": "many"})).run(&["host"]);
    assert_eq!(wrong_form.status, 1);
    assert!(
        wrong_form.stderr.starts_with("ioward: the answer to GET /v1/host makes no sense: "),
        "{}",
        wrong_form.stderr
    );

    let mute = Daemon::with("502 Bad Gateway", json!("?")).run(&["host"]);
    assert_eq!(mute.status, 1);
    assert!(
        mute.stderr.contains("answered 502 Bad Gateway to GET /v1/host without saying why"),
        "{}",
        mute.stderr
    );
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let endless = || {
        Daemon::new(|_, stream| {
            send_head(stream, "200 OK");
            while stream.write_all(&[b' '; 1 << 16]).is_ok() {}
        })
    };
    let document = endless().run(&["host"]);
    assert_eq!(document.status, 1);
    assert!(document.stderr.contains("a body of more than 67108864 bytes"), "{}", document.stderr);
    let line = endless().run(&["events"]);
    assert_eq!(line.status, 1);
    assert!(line.stderr.contains("a line of more than 1048576 bytes"), "{}", line.stderr);
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["host", "--jsno"][..],
        &["hots"],
        &[],
        &["plan"],
        &["start", "../web"],
        &["vfs", "0000:01:00"],
        &["vfs", "../eth0"],
        &["attach", "web", "net0"],
        &["attach", "web", "net0", "--class", "network", "--vlan", "4095"],
    ] {
        let run = run(&mut ioward("/nonexistent".as_ref(), arguments));
        assert_eq!(run.status, 2, "{arguments:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{arguments:?}");
    }
}
