//! `ioward ui` for users of other machines, by mutual TLS: who is let in, and what becomes of all others.

use std::{
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Lines, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Child, ChildStderr, Stdio},
    sync::Arc,
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, date_time_ymd};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::json;
use tokio_rustls::rustls::{
    AlertDescription, ClientConfig, ClientConnection, Error, HandshakeKind, RootCertStore, StreamOwned,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};

use crate::{
    certificates::{Authority, Shown, params},
    support::{Daemon, Folder, Run, allow_many_connections, ioward, run},
    ui::Answer,
};

/// The files of a page.
pub struct Files(Folder);

impl Files {
    pub fn new(page: &Shown, client_ca: &str) -> Self {
        let files = Self(Folder::new());
        files.replace("cert.pem", &page.certificate.pem());
        files.replace("key.pem", &page.key.serialize_pem());
        files.replace("ca.pem", client_ca);
        files
    }

    /// Puts another file in the place of one, as whoever renews certificates does.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.0.file("new", text);
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.0.path().join(name)).unwrap();
    }

    pub fn arguments(&self, listen: &str) -> Vec<String> {
        let file = |name| self.0.path().join(name).to_str().unwrap().to_owned();
        let options = [
            ("--listen", listen.to_owned()),
            ("--tls-cert", file("cert.pem")),
            ("--tls-key", file("key.pem")),
            ("--client-ca", file("ca.pem")),
        ];
        options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect()
    }

    /// Runs it to its end, which is a refusal.
    fn refusal(&self) -> String {
        let arguments = self.arguments("127.0.0.1:0");
        let Run { status, stdout, stderr } = ui(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((status, stdout.as_str()), (1, ""), "{stderr}");
        stderr.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// `ioward ui` with arguments that it refuses.
fn ui(arguments: &[&str]) -> Run {
    let folder = Folder::new();
    run(&mut ioward(&folder.path().join("api.sock"), &[&["ui"], arguments].concat()))
}

/// A page for users of other machines, until dropped.
struct Page {
    daemon: Daemon,
    files: Files,
    child: Child,
    port: u16,
    /// What was printed.
    told: String,
    stderr: Lines<BufReader<ChildStderr>>,
    /// Who has signed what it shows.
    ca: Authority,
    /// Who signs certificates of users.
    users: Authority,
}

impl Page {
    fn new(more: &[&str]) -> Self {
        let daemon = Daemon::with("200 OK", json!([]));
        let (ca, users) = (Authority::new("pages"), Authority::new("users"));
        let files = Files::new(&ca.page(), &users.pem);
        let arguments = files.arguments("127.0.0.1:0");
        let mut command = ioward(&daemon.socket(), &["ui"]);
        let command = command.args(arguments).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let link = lines.next().unwrap().unwrap();
        let told = format!("{link}\n{}", lines.next().unwrap().unwrap());
        let port = link.strip_prefix("https://page.example:").and_then(|rest| rest.strip_suffix('/'));
        let port = port.unwrap_or_else(|| panic!("no link: {link}")).parse().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { daemon, files, child, port, told, stderr, ca, users }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// What somebody's browser does.
    fn client(&self, shown: Option<&Shown>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der.clone()).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(Shown { certificate, key }) => {
                let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
                builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
            }
        })
    }

    fn secure(
        &self,
        client: &Arc<ClientConfig>,
        stream: TcpStream,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("page.example").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(client), name).unwrap(), stream)
    }

    /// Sends a request with these headers, over this connection.
    fn ask_over(
        &self,
        client: &Arc<ClientConfig>,
        stream: TcpStream,
        request: &str,
        headers: &str,
    ) -> io::Result<Answer> {
        let mut stream = self.secure(client, stream);
        let host = if headers.contains("host:") { "" } else { "host: page.example:4443\r\n" };
        let request = format!(
            "{request} HTTP/1.1\r\n{host}{headers}content-length: 2\r\nconnection: close\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(Answer::parse(&answer))
    }

    fn ask(&self, shown: &Shown, request: &str, headers: &str) -> Answer {
        self.ask_over(&self.client(Some(shown)), self.connect(), request, headers).unwrap()
    }

    /// What somebody is told who is not let in.
    fn alert(&self, shown: Option<&Shown>) -> AlertDescription {
        let Err(error) = self.ask_over(&self.client(shown), self.connect(), "GET /", "") else {
            panic!("was let in")
        };
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(Error::AlertReceived(alert)) => *alert,
            _ => panic!("no alert: {error}"),
        }
    }

    /// The next line on stderr that has these words.
    fn line(&mut self, words: &str) -> String {
        let mut lines = self.stderr.by_ref().map(Result::unwrap);
        lines.find(|line| line.contains(words)).unwrap_or_else(|| panic!("no line: {words}"))
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const OWN: &str = "origin: https://page.example:4443\r\nsec-fetch-site: same-origin\r\n";

#[test]
fn whoever_has_a_certificate_has_the_page_and_what_it_asks_for() {
    let mut page = Page::new(&[]);
    assert!(page.told.contains("Everyone with a certificate that is signed by a CA of"), "{}", page.told);
    let alice = page.users.user("alice");
    let index = page.ask(&alice, "GET /", "");
    assert!(index.status == 200 && index.body.contains("<title>"), "{}", index.head);
    assert!(index.header("content-security-policy").is_some(), "{}", index.head);
    let partitions = page.ask(&alice, "GET /v1/partitions", OWN);
    assert!(partitions.status == 200 && partitions.body.contains("[]"), "{}", partitions.body);
    assert_eq!(page.ask(&alice, "POST /v1/plan", OWN).status, 200);
    let line = page.line("/v1/plan");
    assert_eq!(line, "ioward: alice (127.0.0.1): POST /v1/plan", "to the daemon all are one user");
    let session = page.ask(&alice, "POST /session", OWN);
    assert!(session.status == 404 && session.problem().contains("your certificate"), "{}", session.body);
}

#[test]
fn whoever_has_none_or_another_is_told_so_in_the_handshake() {
    let mut page = Page::new(&[]);
    let mut old = params("alice", ExtendedKeyUsagePurpose::ClientAuth);
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let server = params("alice", ExtendedKeyUsagePurpose::ServerAuth);
    let impostor = Authority::new("users").user("alice");
    for (shown, alert) in [
        (None, AlertDescription::CertificateRequired),
        (Some(Authority::new("others").user("alice")), AlertDescription::UnknownCA),
        (Some(impostor), AlertDescription::DecryptError),
        (Some(page.users.sign(&old)), AlertDescription::CertificateExpired),
        (Some(page.users.sign(&server)), AlertDescription::UnsupportedCertificate),
    ] {
        assert_eq!(page.alert(shown.as_ref()), alert);
    }
    assert_eq!(page.daemon.requests(), [], "the daemon has heard of none");
    assert!(page.line("was not let in").starts_with("ioward: 127.0.0.1 was not let in: "));
    let alice = page.users.user("alice");
    assert_eq!(page.ask(&alice, "GET /v1/partitions", "").status, 200);
}

#[test]
fn only_those_who_are_named_are_let_in() {
    let page = Page::new(&["--client-name", "alice", "--client-name", "carol.example"]);
    assert!(page.told.contains("alice, carol.example, by certificates"), "{}", page.told);
    for (name, status) in
        [("alice", 200), ("Carol.example", 200), ("bob", 403), ("alice.example", 403), ("*", 403)]
    {
        let user = page.users.user(name);
        for request in ["GET /", "GET /v1/partitions", "POST /v1/plan"] {
            let answer = page.ask(&user, request, OWN);
            assert_eq!(answer.status, status, "{name}: {request}");
            if status == 403 {
                assert!(answer.problem().contains("no name that is let in"), "{}", answer.body);
            }
        }
    }
    assert_eq!(page.daemon.requests().len(), 4, "two of each of two");
}

#[test]
fn a_connection_shows_its_certificate_however_often_it_was_there() {
    let page = Page::new(&[]);
    let client = page.client(Some(&page.users.user("alice")));
    for _ in 0..2 {
        let mut stream = page.secure(&client, page.connect());
        stream.write_all(b"GET / HTTP/1.1\r\nhost: page.example\r\nconnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn names_that_the_certificate_does_not_have_and_other_pages_are_refused() {
    let page = Page::new(&[]);
    let alice = page.users.user("alice");
    for host in ["page.example", "PAGE.example:4443", "127.0.0.1:4443"] {
        let own = format!("host: {host}\r\norigin: https://{host}\r\n");
        assert_eq!(page.ask(&alice, "POST /v1/plan", &own).status, 200, "{host}");
    }
    let heard = page.daemon.requests().len();
    for (headers, words) in [
        ("host: evil.example:4443\r\n", "its certificate is for page.example"),
        ("host: localhost:4443\r\n", "its certificate is for page.example"),
        ("host: 127.0.0.2:4443\r\n", "its certificate is for page.example"),
        ("origin: https://evil.example\r\n", "another page"),
        ("origin: https://page.example:4444\r\n", "another page"),
        ("origin: http://page.example:4443\r\n", "another page"),
        ("sec-fetch-site: same-site\r\n", "another page"),
        ("accept: */*\r\n", "which page it comes from"),
    ] {
        let no = page.ask(&alice, "POST /v1/plan", headers);
        assert!(no.status == 403 && no.problem().contains(words), "{headers}: {}", no.body);
    }
    assert_eq!(page.daemon.requests().len(), heard, "the daemon has heard of none");
}

#[test]
fn whoever_does_not_speak_tls_is_told_to() {
    let mut page = Page::new(&[]);
    let mut stream = page.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: page.example\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let answer = Answer::parse(&answer);
    assert!(answer.status == 400 && answer.body.contains("begins with https://"), "{}", answer.head);
    page.line("does not speak TLS");
    // What begins as TLS and goes on as something else.
    let mut stream = page.connect();
    stream.write_all(&[22; 4096]).unwrap();
    let ended = stream.read_to_end(&mut Vec::new());
    assert!(ended.is_ok_and(|length| length < 100), "an alert, and the end");
}

/// Each has sent half of what a handshake begins with. They have their share, are let go of in time, and meanwhile others are served.
#[test]
fn a_thousand_connections_that_show_nothing_hold_nobody_up() {
    allow_many_connections();
    let page = Page::new(&[]);
    let alice = page.client(Some(&page.users.user("alice")));
    let idle: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = page.connect();
            // One beyond the bound may be closed already.
            let _ = stream.write_all(&[22, 3, 1]);
            stream
        })
        .collect();
    let elsewhere = from(Ipv4Addr::new(127, 0, 0, 2), page.port);
    let answer = page.ask_over(&alice, elsewhere, "GET /v1/partitions", "").unwrap();
    assert_eq!(answer.status, 200, "from another address");
    for mut stream in idle {
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(answer, b"");
    }
    let answer = page.ask_over(&alice, page.connect(), "GET /v1/partitions", "").unwrap();
    assert_eq!(answer.status, 200, "and from the same");
}

fn from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::new(address.into(), 0)).unwrap();
    connect(&socket, &SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)).unwrap();
    socket.into()
}

#[test]
fn certificates_that_are_renewed_are_read_anew() {
    let mut page = Page::new(&[]);
    let (alice, others) = (page.users.user("alice"), Authority::new("others"));
    let bob = others.user("bob");
    assert_eq!(page.ask(&alice, "GET /", "").status, 200);
    assert_eq!(page.alert(Some(&bob)), AlertDescription::UnknownCA);

    page.files.replace("ca.pem", &others.pem);
    assert_eq!(page.ask(&bob, "GET /", "").status, 200);
    assert_eq!(page.alert(Some(&alice)), AlertDescription::UnknownCA);
    page.line("were read anew");

    // Between the one file and the other nothing fits.
    let renewed = page.ca.page();
    page.files.replace("cert.pem", &renewed.certificate.pem());
    assert_eq!(page.ask(&bob, "GET /", "").status, 200);
    assert!(page.line("stay in use").contains("is not that of the first certificate"));
    page.files.replace("key.pem", &renewed.key.serialize_pem());
    let mut stream = page.secure(&page.client(Some(&bob)), page.connect());
    stream.write_all(b"GET / HTTP/1.1\r\nhost: page.example\r\nconnection: close\r\n\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(stream.conn.peer_certificates().unwrap(), [renewed.certificate.der().clone()]);
    page.line("were read anew");
}

#[test]
fn without_certificates_only_loopback_is_listened_at() {
    for address in ["192.0.2.7:4443", "127.0.0.2:4443", "0.0.0.0:4443", "[::]:4443", "[::1]:4443"] {
        let no = ui(&["--listen", address]);
        assert_eq!((no.status, no.stdout.as_str()), (2, ""), "{}", no.stderr);
        for words in [address, "without TLS", "--tls-cert FILE --tls-key FILE --client-ca FILE"] {
            assert!(no.stderr.contains(words), "{}", no.stderr);
        }
    }
    for arguments in [
        &["--listen", "localhost"][..],
        &["--listen", "127.0.0.1"],
        &["--listen", "127.0.0.1:0", "--port", "4000"],
        &["--listen", "127.0.0.1:0", "--tls-cert", "c", "--tls-key", "k"],
        &["--listen", "127.0.0.1:0", "--client-name", "alice"],
        &["--tls-cert", "c", "--tls-key", "k", "--client-ca", "a"],
    ] {
        let no = ui(arguments);
        assert_eq!((no.status, no.stdout.as_str()), (2, ""), "{arguments:?}: {}", no.stderr);
    }
}

#[test]
fn certificates_that_no_browser_would_take_are_refused_at_the_start() {
    let (ca, users) = (Authority::new("pages"), Authority::new("users"));
    let made = Files::new(&ca.page(), &users.pem);
    fs::set_permissions(made.0.path().join("key.pem"), fs::Permissions::from_mode(0o604)).unwrap();
    assert_eq!(
        made.refusal(),
        "ioward: every user of this host may read key.pem; take that from them: chmod o= key.pem\n"
    );
    made.replace("key.pem", &users.page().key.serialize_pem());
    assert!(made.refusal().contains("the key in key.pem is not that of the first certificate in cert.pem"));

    let mut old = params("page.example", ExtendedKeyUsagePurpose::ServerAuth);
    (old.not_before, old.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let made = Files::new(&ca.sign(&old), &users.pem);
    assert!(made.refusal().contains("the certificate in cert.pem expired "), "{}", made.refusal());
    let nameless = ca.sign(&CertificateParams::default());
    let made = Files::new(&nameless, &users.pem);
    assert!(made.refusal().contains("has no DNS name and is not for 127.0.0.1 either"), "{}", made.refusal());
    fs::remove_file(made.0.path().join("ca.pem")).unwrap();
    assert_eq!(made.refusal(), "ioward: cannot read ca.pem: No such file or directory\n");
}
