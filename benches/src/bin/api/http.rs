//! As much of HTTP as a benchmark needs, by hand: nothing of the client's is in what is measured.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// The daemon's socket, in its folder.
pub const SOCKET: &str = "api.sock";

/// An answer, and how long it took.
pub struct Answer {
    pub head: String,
    pub body: Vec<u8>,
    /// From connecting to the first byte.
    pub first: Duration,
}

/// Has the daemon look at the host anew.
pub const ANEW: &str = "cache-control: no-cache\r\n";

/// Asks, and reads the answer whole. It must have a `Content-Length`, or be of no interest but for its end.
pub fn ask(folder: &Path, route: &str, body: &str) -> Answer {
    ask_with(folder, route, "", body)
}

/// The same with these headers.
pub fn ask_with(folder: &Path, route: &str, headers: &str, body: &str) -> Answer {
    let begun = Instant::now();
    let mut stream = UnixStream::connect(folder.join(SOCKET)).unwrap();
    let length = body.len();
    let head = format!(
        "{route} HTTP/1.1\r\nhost: ioward\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0; 1];
    stream.read_exact(&mut answer).unwrap();
    let first = begun.elapsed();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    let head = String::from_utf8(answer).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{route}: {head}{}", String::from_utf8_lossy(&body));
    Answer { head, body, first }
}
