//! The examples of the documents that use curl: each is run as it is printed, in turn, on the embedded machine, and has the answer that
//! is printed below it.

use std::{io::ErrorKind, process::Command};

use crate::{
    documents::{Block, documents},
    examples::{Running, beginning},
    served::Served,
};

/// The socket of the examples.
const SOCKET: &str = "/run/ioward/api.sock";

/// The documents whose examples these are.
pub const DOCUMENTS: [&str; 2] = ["docs/api.md", "docs/metrics.md"];

#[test]
fn every_example_with_curl_does_what_the_documents_say() {
    if let Err(error) = Command::new("curl").arg("--version").output() {
        assert_ne!(error.kind(), ErrorKind::NotFound, "this test needs curl: apt install curl");
        panic!("curl: {error}");
    }
    let served = Served::as_shown();
    let socket = served.socket();
    let mut running = Vec::new();
    for document in documents().iter().filter(|it| DOCUMENTS.contains(&it.name.as_str())) {
        let (blocks, prose) = document.parts();
        for (number, line) in prose {
            assert!(!line.contains("curl -"), "{}: line {number}: an example is a block", document.name);
        }
        for example in blocks.iter().filter(|block| block.has_prompts()).flat_map(Block::examples) {
            assert!(example.command.contains(SOCKET), "{}: {}", example.place, example.command);
            let command = example.command.replace(SOCKET, socket.to_str().unwrap());
            let one = Running::start(example, &command, |_| ());
            // One that goes on is waited for until it has begun to answer: the next may be about what it shows.
            one.wait_for(&beginning(&one.example.answer));
            running.push(one);
        }
    }
    assert!(running.len() > 10, "{}", running.len());
    for one in &running {
        one.wait_for(&one.example.answer);
    }
}
