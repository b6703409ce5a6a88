//! A management partition that follows a test's script, at the other end of a Unix socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    reason = "helpers of tests, of which each file uses its part"
)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

use ioward_channel::{
    AgentMessage, Hello, ImpMessage, VERSION, Welcome,
    stream::{self, Decoder},
};
use ioward_model::{Class, OpError, OpOutcome, VfOp, VfSettings, VfView};

/// Ample on a slow machine, and bounds a failing test.
const BOUND: Duration = Duration::from_secs(60);

/// A script that runs beside the test.
pub struct Imp {
    pub port: PathBuf,
    script: Option<JoinHandle<()>>,
}

impl Imp {
    /// Runs the script with the first agent that connects.
    pub fn runs(script: impl FnOnce(&mut Connection) + Send + 'static) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let port = std::env::temp_dir().join(format!("ioward-agent-{}-{number}.sock", std::process::id()));
        let _ = fs::remove_file(&port);
        let listener = UnixListener::bind(&port).unwrap();
        let script = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(BOUND)).unwrap();
            let mut connection = Connection { stream, decoder: Decoder::new(), chunk: Vec::new(), used: 0 };
            script(&mut connection);
        });
        Self { port, script: Some(script) }
    }

    /// A script that greets the agent and answers its one request.
    pub fn answers(answer: impl FnOnce(VfOp) -> Result<OpOutcome, OpError> + Send + 'static) -> Self {
        Self::runs(|agent| {
            agent.greet();
            let (id, op) = agent.request();
            agent.send(&ImpMessage::Response { id, more: false, result: answer(op) });
        })
    }

    pub fn port(&self) -> &Path {
        &self.port
    }

    /// Waits for the script, and fails if it failed.
    pub fn ended(mut self) {
        self.script.take().unwrap().join().unwrap();
    }
}

impl Drop for Imp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.port);
    }
}

/// The management partition's end of a channel.
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
    chunk: Vec<u8>,
    used: usize,
}

impl Connection {
    pub fn write(&mut self, bytes: &[u8]) {
        // The test decides whether the agent may hang up here.
        let _ = self.stream.write_all(bytes);
    }

    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    pub fn send(&mut self, message: &ImpMessage) {
        self.write(&encoded(message));
    }

    pub fn receive(&mut self) -> AgentMessage {
        loop {
            let mut input = &self.chunk[self.used..];
            let item = self.decoder.next(&mut input);
            self.used = self.chunk.len() - input.len();
            if let Some(frame) = item {
                return AgentMessage::from_frame(&frame.unwrap()).unwrap();
            }
            self.chunk.resize(4096, 0);
            let count = self.stream.read(&mut self.chunk).unwrap();
            assert!(count > 0, "the agent hung up");
            self.chunk.truncate(count);
            self.used = 0;
        }
    }

    /// Waits until the agent has hung up.
    pub fn agent_leaves(&mut self) {
        while self.stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
    }

    pub fn hello(&mut self) -> Hello {
        match self.receive() {
            AgentMessage::Hello(hello) => hello,
            other => panic!("{other:?} instead of a hello"),
        }
    }

    pub fn request(&mut self) -> (u32, VfOp) {
        match self.receive() {
            AgentMessage::Request { id, op } => (id, op),
            other => panic!("{other:?} instead of a request"),
        }
    }

    pub fn greet(&mut self) {
        self.greet_in(1);
    }

    pub fn greet_in(&mut self, epoch: u64) {
        let nonce = self.hello().nonce;
        self.send(&welcome(nonce, epoch));
    }

    /// Answers a subscription and the list that follows it.
    pub fn subscribe(&mut self, views: Vec<VfView>) {
        let AgentMessage::Subscribe { id } = self.receive() else { panic!("a subscription") };
        self.send(&done(id));
        let (id, _) = self.request();
        self.send(&vfs(id, views));
    }
}

pub fn encoded(message: &ImpMessage) -> Vec<u8> {
    let mut bytes = stream::START.to_vec();
    message.to_frames().iter().for_each(|frame| stream::encode(frame, &mut bytes));
    bytes
}

pub fn welcome(nonce: u64, epoch: u64) -> ImpMessage {
    ImpMessage::Welcome(Welcome { version: VERSION, epoch, nonce, partition: "web".parse().unwrap() })
}

pub fn done(id: u32) -> ImpMessage {
    ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Done) }
}

pub fn vfs(id: u32, views: Vec<VfView>) -> ImpMessage {
    ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Vfs(views)) }
}

pub fn view(name: &str) -> VfView {
    VfView {
        name: name.parse().unwrap(),
        class: Class::Network,
        host_address: "0000:01:10.0".parse().unwrap(),
        settings: VfSettings { mac: Some("52:54:00:aa:00:01".parse().unwrap()), ..VfSettings::default() },
        may: vec!["mac".to_owned()],
        failover: None,
        fault: None,
    }
}
