//! docs/ui.md, "For users of other machines": the certificates are made as it says, the page is served with them, and curl gets in
//! with one and not without.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    process::{Command, Output, Stdio},
};

use crate::{
    documents::{Block, Example, documents},
    examples::{Running, is},
    served::Served,
    support::Folder,
};

/// The address and the name of the page in the document.
const ADDRESS: &str = "192.0.2.7";
const NAME: &str = "host.example";

#[test]
fn the_page_is_served_with_certificates_that_were_made_as_the_document_says() {
    for program in ["curl", "openssl"] {
        if let Err(error) = Command::new(program).arg("version").output() {
            assert_ne!(error.kind(), ErrorKind::NotFound, "this test needs {program}: apt install {program}");
            panic!("{program}: {error}");
        }
    }
    let served = Served::as_shown();
    let place = Place::new(&served);
    let recipe = examples("Certificates with openssl");
    let (serves, makes): (Vec<_>, Vec<_>) =
        recipe.into_iter().partition(|example| example.command.starts_with("ioward ui"));
    let made: String = makes.iter().map(|example| example.command.as_str()).collect();
    place.make(&made);
    // A second user, of the same CA.
    let (_, bob) = made.split_once("openssl x509").and_then(|(_, rest)| rest.split_once(".pem\n")).unwrap();
    place.make(&bob.replace("alice", "bob"));
    place.opens("alice.p12");

    // Only alice is let in.
    let [page] = &serves[..] else { panic!("the recipe ends in a page that is served") };
    let page = place.serve(page);
    let of_others = examples("For users of other machines");
    let [everybody, looks, asks] = &of_others[..] else { panic!("a page, and two requests to one") };
    let shown = place.curl(looks, &page, "alice");
    assert!(shown.contains(r#""name":"web""#) && shown.contains(r#""name":"db""#), "{shown}");
    let plan = place.curl(asks, &page, "alice");
    assert!(plan.contains(r#""step":"stop-partition""#), "{plan}");
    page.running.wait_until(|told| told.contains("alice (127.0.0.1): POST /v1/plan"));
    let refused = place.curl(looks, &page, "bob");
    assert!(refused.contains(r#""status":403"#), "{refused}");
    place.is_shut_out(looks, &page, "");
    drop(page);

    // Everybody with a certificate of the CA is.
    fs::copy(place.folder.path().join("ca.pem"), place.folder.path().join("users-ca.pem")).unwrap();
    let page = place.serve(everybody);
    let uid = rustix::process::geteuid();
    let whoever = if uid.is_root() { "root".to_owned() } else { format!("user {}", uid.as_raw()) };
    let printed = everybody.answer.replace("4443", &page.port).replace("user 993", &whoever);
    assert!(is(&printed, &page.told), "printed:\n{printed}came:\n{}", page.told);
    assert_eq!(place.curl(looks, &page, "bob"), shown);
    place.is_shut_out(looks, &page, "");
    // One that nobody has signed is nobody's.
    place.make(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj /CN=eve \
         -addext subjectAltName=DNS:alice -addext extendedKeyUsage=clientAuth -keyout eve.key -out eve.pem",
    );
    place.is_shut_out(looks, &page, "eve");
}

/// The command lines below a heading of docs/ui.md.
fn examples(section: &str) -> Vec<Example> {
    let all = documents();
    let document = all.iter().find(|document| document.name == "docs/ui.md").unwrap();
    let (blocks, _) = document.parts();
    blocks.iter().filter(|block| block.section == section).flat_map(Block::examples).collect()
}

/// Where the certificates are made.
struct Place<'a> {
    folder: Folder,
    served: &'a Served,
}

/// A page that is served, until dropped.
struct Page {
    running: Running,
    told: String,
    port: String,
}

impl<'a> Place<'a> {
    fn new(served: &'a Served) -> Self {
        let place = Self { folder: Folder::new(), served };
        place.folder.file("intent.json", r#"{"intent": "stop", "partition": "web"}"#);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ioward"), place.folder.path().join("ioward")).unwrap();
        place
    }

    /// Runs these command lines, with the address that the page has here.
    fn make(&self, lines: &str) {
        let lines = format!("set -e\n{}", lines.replace(ADDRESS, "127.0.0.1"));
        // The password of alice.p12, twice; asked for on no terminal.
        let output = self.shell(&lines, "secret\nsecret\n").unwrap();
        assert!(output.status.success(), "{lines}{}", String::from_utf8_lossy(&output.stderr));
    }

    fn shell(&self, lines: &str, input: &str) -> io::Result<Output> {
        let mut shell = Command::new("setsid");
        shell.args(["--wait", "bash", "-c", lines]).current_dir(self.folder.path());
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // What asks for nothing may have ended.
        let _ = shell.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
        shell.wait_with_output()
    }

    /// Whether this is what a browser takes: a certificate with its key, behind the password.
    fn opens(&self, file: &str) {
        let output =
            self.shell(&format!("openssl pkcs12 -in {file} -passin pass:secret -noenc"), "").unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"), "{text}");
    }

    fn serve(&self, Example { place, command, answer }: &Example) -> Page {
        let (place, command, answer) = (place.clone(), command.clone(), answer.clone());
        let line = command.replace(&format!("{ADDRESS}:4443"), "127.0.0.1:0");
        let line = format!("exec 2>&1; exec ./{line}");
        let socket = self.served.socket();
        let prepare = |command: &mut Command| {
            command.current_dir(self.folder.path()).env("IOWARD_SOCKET", &socket);
        };
        let running = Running::start(Example { place, command, answer }, &line, prepare);
        let told = running.wait_until(|told| told.contains("Ctrl-C"));
        let port = told.split_once(&format!("https://{NAME}:")).and_then(|(_, rest)| rest.split_once('/'));
        let (port, _) = port.unwrap_or_else(|| panic!("no link: {told}"));
        Page { port: port.to_owned(), told, running }
    }

    fn request(&self, example: &Example, page: &Page, user: &str) -> Output {
        let at = format!("{NAME}:{}", page.port);
        let known = format!("curl -sS --max-time 60 --resolve {at}:127.0.0.1 ");
        let line = example.command.replace("curl ", &known).replace(&format!("{NAME}:4443"), &at);
        // One CA signs for both sides here.
        let line = line.replace("page-ca.pem", "ca.pem");
        let shown = "--cert alice.pem --key alice.key";
        assert!(line.contains(shown), "{line}");
        let shows = if user.is_empty() { String::new() } else { shown.replace("alice", user) };
        let line = line.replace(shown, &shows);
        self.shell(&line, "").unwrap()
    }

    /// What whoever has this certificate is answered.
    fn curl(&self, example: &Example, page: &Page, user: &str) -> String {
        let output = self.request(example, page, user);
        let [told, answer] = [&output.stderr, &output.stdout].map(|text| String::from_utf8_lossy(text));
        assert!(output.status.success(), "{}: {}{told}", example.place, example.command);
        answer.into_owned()
    }

    /// Nobody with this certificate, or with none, is let in.
    fn is_shut_out(&self, example: &Example, page: &Page, user: &str) {
        let output = self.request(example, page, user);
        // 35, 55, 56: a handshake, sending and receiving that failed. It was connected, and took the page's own certificate.
        let by_tls = output.status.code().is_some_and(|status| [35, 55, 56].contains(&status));
        assert!(by_tls && output.stdout.is_empty(), "{user:?}: {output:?}");
    }
}
