//! A machine's serial console through the API: opened by the side that may, read and typed on by the one that may not.

use std::{
    error::Error,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Instant,
};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, partition, vf},
    harness::Outcome,
};

const ROUTE: &str = "/v1/partitions/web/console";

fn ask(socket: &Path, request: &str) -> Result<UnixStream, Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(request.as_bytes())?;
    Ok(stream)
}

/// What is typed is a sum, and what is waited for is its result: the echo of the line is no answer.
pub fn a_console_is_watched_and_typed_on_through_the_daemon() -> Outcome {
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &partition("web"), &vf("net0", "network", "")].concat())?;
    // By HTTP/1.0 the bytes come as they are, and not in chunks.
    let mut watched = ask(&daemon.socket(), &format!("GET {ROUTE} HTTP/1.0\r\nhost: ioward\r\n\r\n"))?;
    watched.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
    let (deadline, mut seen) = (Instant::now() + SOON, String::new());
    // The guest may not have booted yet, and what is typed before is lost.
    while !seen.contains("sum=42.") {
        if Instant::now() > deadline {
            return Err(format!("no shell answers on the console: {seen}").into());
        }
        let line = "echo sum=$((40+2)).\n";
        let length = line.len();
        let head = format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: ioward\r\ncontent-type: application/octet-stream\r\ncontent-length: {length}\r\n"
        );
        let mut typed = String::new();
        ask(&daemon.socket(), &format!("{head}connection: close\r\n\r\n{line}"))?
            .read_to_string(&mut typed)?;
        assert!(typed.starts_with("HTTP/1.1 204"), "{typed}");
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = watched.read(&mut bytes) {
            seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }
    assert!(seen.starts_with("HTTP/1.0 200"), "{seen}");
    daemon.done(&["remove", "--yes", "--force", "web"])?;
    Ok(())
}
