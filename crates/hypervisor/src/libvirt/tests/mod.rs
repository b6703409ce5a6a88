//! The client against a daemon that does what the test says: hangs, dies, lies. What a real one says is in `recorded.rs`, and
//! a real one is in the lab.

mod connection;
mod link;
mod recorded;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::{
    Bounds, Connection, Domain, Events, LibvirtError, Uuid,
    wire::{self, Procedure},
    xdr::Writer,
};

pub(super) const REMOTE: u32 = 0x2000_8086;
const KEEPALIVE: u32 = 0x6b65_6570;
pub(super) const REPLY: u32 = 1;
pub(super) const MESSAGE: u32 = 2;

pub(super) const BOUNDS: Bounds = Bounds {
    call: Duration::from_secs(60),
    start: Duration::from_secs(300),
    quiet: Duration::from_secs(5),
    unanswered: 5,
};

/// The daemon's end.
pub(super) struct Daemon(pub(super) UnixStream);

/// A call that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) program: u32,
    pub(super) procedure: u32,
    pub(super) serial: u32,
    pub(super) arguments: Vec<u8>,
}

impl Daemon {
    pub(super) async fn next(&mut self) -> Option<Call> {
        let mut header = [0; 28];
        self.0.read_exact(&mut header).await.ok()?;
        let word = |index: usize| u32::from_be_bytes(header[4 * index..][..4].try_into().unwrap());
        let mut arguments = vec![0; word(0) as usize - 28];
        self.0.read_exact(&mut arguments).await.ok()?;
        Some(Call { program: word(1), procedure: word(3), serial: word(5), arguments })
    }

    /// The next call, which is of this procedure.
    async fn expect(&mut self, procedure: Procedure) -> Call {
        let call = self.next().await.expect("a call");
        assert_eq!((call.program, call.procedure), (REMOTE, procedure as u32));
        call
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    pub(super) async fn answer(&mut self, call: &Call, returned: Writer) {
        self.send(&wire::message(REMOTE, call.procedure, REPLY, call.serial, &returned.done())).await;
    }

    /// Says no: `virNetMessageError`.
    pub(super) async fn refuse(&mut self, call: &Call, code: i32, why: &str) {
        let error = Writer::default().i32(code).i32(10).u32(1).string(why).i32(2);
        let body = error.u32(0).u32(0).u32(0).u32(0).i32(-1).i32(-1).u32(0).done();
        let mut bytes = wire::message(REMOTE, call.procedure, REPLY, call.serial, &body);
        bytes[27] = 1;
        self.send(&bytes).await;
    }

    /// Answers what a client asks before it can be used.
    pub(super) async fn welcome(&mut self) {
        let call = self.expect(Procedure::AuthList).await;
        self.answer(&call, Writer::default().u32(1).u32(0)).await;
        let call = self.expect(Procedure::ConnectOpen).await;
        assert_eq!(call.arguments, Writer::default().u32(1).string("qemu:///system").u32(0).done());
        self.answer(&call, Writer::default()).await;
        for id in [0, 1, 15, 19, 22] {
            let call = self.expect(Procedure::ConnectDomainEventCallbackRegisterAny).await;
            assert_eq!(call.arguments, Writer::default().i32(id).u32(0).done());
            self.answer(&call, Writer::default().i32(id)).await;
        }
    }
}

/// A client and the daemon that it is connected to.
async fn connected() -> (Connection, Events, Daemon) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut daemon = Daemon(theirs);
    let (opened, ()) = tokio::join!(Connection::over(ours, BOUNDS), daemon.welcome());
    let (connection, events) = opened.unwrap();
    (connection, events, daemon)
}

fn web() -> Domain {
    let uuid: Uuid = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0".parse().unwrap();
    Domain { name: "web".to_owned(), uuid, id: Some(1) }
}

/// The event that `web` has changed.
fn lifecycle(change: i32) -> Vec<u8> {
    let event = wire::write_domain(Writer::default().i32(0), &web()).i32(change).i32(0);
    wire::message(REMOTE, 318, MESSAGE, 0, &event.done())
}

/// How a connection ended.
async fn end_of(connection: &Connection) -> String {
    match connection.version().await {
        Err(LibvirtError::Lost(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}
