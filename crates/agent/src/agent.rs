//! A session with the management partition: hello, then operations, and hello again after a restart.
//!
//! ```text
//!            hello ──────────────┐
//!   open ──> greeting ── welcome with our nonce ──> session ── request/response
//!               ^  └── anything else: not ours         │
//!               └───── reset, or "hello needed" ───────┘
//! ```

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    path::Path,
    time::Duration,
};

use ioward_channel::{
    AgentMessage, ErrorCode, Hello, ImpMessage, MAX_VFS, Notice, OLDEST_VERSION, VERSION, Welcome,
    shared::EndFds,
};
use ioward_model::{Name, OpOutcome, VfOp, VfSettings, VfStatistics, VfView};

use crate::{
    AgentError,
    deadline::Deadline,
    link::{Incoming, Link},
    watch::Watch,
};

/// Maximum number of notices queued while waiting for an answer.
const MAX_NOTICES: usize = 1024;

/// An agent's timeouts and nonce; the defaults suit a machine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for the port and for the management partition's welcome, together.
    pub connect: Duration,
    /// How long to wait for each answer.
    pub answer: Duration,
    /// A number that no agent of this machine has used before. Random by default, from the kernel.
    pub nonce: u64,
}

impl Default for Options {
    fn default() -> Self {
        // The keys of std's hasher are random and never block, even early at boot.
        let bound = Duration::from_secs(10);
        Self { connect: bound, answer: bound, nonce: RandomState::new().hash_one(0) }
    }
}

/// A session with the management partition.
pub struct Agent {
    link: Link,
    connect: Duration,
    answer: Duration,
    /// The nonce of the latest hello.
    nonce: u64,
    /// The number of the latest request.
    id: u32,
    welcome: Option<Welcome>,
    /// Counts sessions: a subscription ends with its session.
    pub(crate) session: u64,
    /// Notices that came while waiting for an answer.
    pub(crate) notices: VecDeque<Notice>,
}

/// The outcome of waiting for an answer.
enum Answer {
    /// The answer came.
    Outcome(OpOutcome),
    /// The management partition never received the request.
    NotDone,
    /// The management partition restarted.
    Unknown,
}

impl Agent {
    /// Opens the port, a character device or a Unix socket, and says hello.
    ///
    /// # Errors
    /// When the port can't be opened, another process keeps it, or nobody answers.
    pub fn open(port: &Path, options: Options) -> Result<Self, AgentError> {
        let deadline = Deadline::after(options.connect);
        Self::over(Link::open(port, deadline)?, &options, deadline)
    }

    /// Takes over a region of shared memory that no agent has used before, and says hello.
    ///
    /// # Errors
    /// When the descriptors are not a region, or nobody answers.
    pub fn from_shared(fds: EndFds, options: Options) -> Result<Self, AgentError> {
        let deadline = Deadline::after(options.connect);
        Self::over(Link::from_shared(fds)?, &options, deadline)
    }

    fn over(link: Link, options: &Options, deadline: Deadline) -> Result<Self, AgentError> {
        let Options { connect, answer, nonce } = *options;
        // Request numbers start at random, so that a late answer to an earlier agent matches none of ours.
        let [.., a, b, c, d] = nonce.to_be_bytes();
        let id = u32::from_be_bytes([a, b, c, d]);
        let mut agent =
            Self { link, connect, answer, nonce, id, welcome: None, session: 0, notices: VecDeque::new() };
        agent.greet(deadline)?;
        Ok(agent)
    }

    /// The latest welcome from the management partition.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// All VFs of this partition.
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn list(&mut self) -> Result<Vec<VfView>, AgentError> {
        match self.perform(VfOp::List)? {
            OpOutcome::Vfs(views) => Ok(views),
            other => Err(nonsense("list", &other)),
        }
    }

    /// One VF with its settings.
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn get(&mut self, vf: Name) -> Result<VfView, AgentError> {
        match self.perform(VfOp::Get { vf })? {
            OpOutcome::Vf(view) => Ok(view),
            other => Err(nonsense("get", &other)),
        }
    }

    /// Changes settings of a VF, all of them or none, and returns the VF afterwards.
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn set(&mut self, vf: Name, change: VfSettings) -> Result<VfView, AgentError> {
        match self.perform(VfOp::Set { vf, change })? {
            OpOutcome::Vf(view) => Ok(view),
            other => Err(nonsense("set", &other)),
        }
    }

    /// Resets a VF (FLR).
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn reset(&mut self, vf: Name) -> Result<(), AgentError> {
        match self.perform(VfOp::Reset { vf })? {
            OpOutcome::Done => Ok(()),
            other => Err(nonsense("reset", &other)),
        }
    }

    /// Has the standby of a VF active in its place, or the VF itself again, and returns the VF afterwards.
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn failover(&mut self, vf: Name, back: bool) -> Result<VfView, AgentError> {
        match self.perform(VfOp::Failover { vf, back })? {
            OpOutcome::Vf(view) => Ok(view),
            other => Err(nonsense("failover", &other)),
        }
    }

    /// Traffic counters of a VF.
    ///
    /// # Errors
    /// As [`Agent::perform`].
    pub fn stats(&mut self, vf: Name) -> Result<VfStatistics, AgentError> {
        match self.perform(VfOp::Stats { vf })? {
            OpOutcome::Stats(counters) => Ok(counters),
            other => Err(nonsense("stats", &other)),
        }
    }

    /// Watches the VFs of this partition come, go and change.
    pub fn watch(&mut self) -> Watch<'_> {
        Watch::new(self)
    }

    /// Requests an operation and waits for the answer. Repeats one that only reads after a restart of the
    /// management partition.
    ///
    /// # Errors
    /// [`AgentError::Operation`] when the management partition refuses; [`AgentError::Interrupted`] when it
    /// restarts during a change; otherwise an error of the channel.
    pub fn perform(&mut self, op: VfOp) -> Result<OpOutcome, AgentError> {
        let reads = matches!(op, VfOp::List | VfOp::Get { .. } | VfOp::Stats { .. });
        let name = op.name();
        self.ask(name, reads, |id| AgentMessage::Request { id, op: op.clone() })
    }

    /// Subscribes to notices.
    pub(crate) fn subscribe(&mut self) -> Result<(), AgentError> {
        match self.ask("watch", true, |id| AgentMessage::Subscribe { id })? {
            OpOutcome::Done => Ok(()),
            other => Err(nonsense("watch", &other)),
        }
    }

    /// Says hello again after a reset.
    pub(crate) fn greet_again(&mut self) -> Result<(), AgentError> {
        self.greet(Deadline::after(self.connect))
    }

    /// The next message; waits without a bound where there is none.
    pub(crate) fn receive(&mut self, bound: Option<Duration>) -> Result<Incoming, AgentError> {
        self.link.receive(bound.map(Deadline::after))
    }

    fn ask(
        &mut self,
        name: &'static str,
        may_repeat: bool,
        message: impl Fn(u32) -> AgentMessage,
    ) -> Result<OpOutcome, AgentError> {
        let deadline = Deadline::after(self.answer);
        loop {
            self.id = self.id.wrapping_add(1).max(1);
            let message = message(self.id);
            let spoken = self.welcome.as_ref().map_or(OLDEST_VERSION, |welcome| welcome.version);
            if message.needs_version() > spoken {
                return Err(AgentError::TooOld { needs: message.needs_version(), spoken });
            }
            self.link.send(&message, deadline)?;
            match self.answer(deadline)? {
                Answer::Outcome(outcome) => return Ok(outcome),
                Answer::NotDone => self.greet(deadline)?,
                Answer::Unknown => {
                    self.greet(deadline)?;
                    if !may_repeat {
                        return Err(AgentError::Interrupted { op: name });
                    }
                }
            }
        }
    }

    /// Waits for the answer to the latest request.
    fn answer(&mut self, deadline: Deadline) -> Result<Answer, AgentError> {
        let mut views = Vec::new();
        loop {
            match self.link.receive(Some(deadline))? {
                Incoming::Message(ImpMessage::Response { id, more, result }) if id == self.id => {
                    match result? {
                        OpOutcome::Vfs(part) => {
                            views.extend(part);
                            if views.len() > MAX_VFS {
                                return Err(AgentError::Nonsense(format!("more than {MAX_VFS} VFs")));
                            }
                            if !more {
                                return Ok(Answer::Outcome(OpOutcome::Vfs(views)));
                            }
                        }
                        outcome => return Ok(Answer::Outcome(outcome)),
                    }
                }
                Incoming::Message(ImpMessage::Error(error)) if error.id == self.id => {
                    return match error.code {
                        ErrorCode::HelloNeeded => Ok(Answer::NotDone),
                        _ => Err(AgentError::Nonsense(error.message)),
                    };
                }
                Incoming::Message(ImpMessage::Reset { .. }) => return Ok(Answer::Unknown),
                Incoming::Message(ImpMessage::Notice(notice)) => self.keep(notice)?,
                Incoming::Unreadable { id, problem } if id == self.id => {
                    return Err(AgentError::Nonsense(problem.to_string()));
                }
                // Answers to an earlier agent, and to requests that have timed out.
                Incoming::Message(_) | Incoming::Unreadable { .. } => {}
            }
        }
    }

    fn keep(&mut self, notice: Notice) -> Result<(), AgentError> {
        if self.notices.len() == MAX_NOTICES {
            return Err(AgentError::Nonsense(format!("more than {MAX_NOTICES} notices before an answer")));
        }
        self.notices.push_back(notice);
        Ok(())
    }

    /// Says hello until it is answered. Anything before the answer was meant for an earlier agent.
    fn greet(&mut self, deadline: Deadline) -> Result<(), AgentError> {
        self.notices.clear();
        'hello: loop {
            self.nonce = self.nonce.wrapping_add(1);
            let agent = concat!("ioward-agent ", env!("CARGO_PKG_VERSION")).to_owned();
            let hello = Hello { min_version: OLDEST_VERSION, max_version: VERSION, agent, nonce: self.nonce };
            self.link.send(&AgentMessage::Hello(hello), deadline)?;
            loop {
                match self.link.receive(Some(deadline))? {
                    Incoming::Message(ImpMessage::Welcome(welcome)) if welcome.nonce == self.nonce => {
                        if !(OLDEST_VERSION..=VERSION).contains(&welcome.version) {
                            let version = welcome.version;
                            return Err(AgentError::Nonsense(format!(
                                "protocol version {version} was not offered"
                            )));
                        }
                        self.welcome = Some(welcome);
                        self.session += 1;
                        return Ok(());
                    }
                    Incoming::Message(ImpMessage::Error(error)) if error.nonce == Some(self.nonce) => {
                        return Err(match error.code {
                            ErrorCode::UnsupportedVersion => AgentError::UnsupportedVersion {
                                imp_min: error.min_version,
                                imp_max: error.max_version,
                            },
                            _ => AgentError::Nonsense(error.message),
                        });
                    }
                    // The hello may have gone to a management partition that has since ended.
                    Incoming::Message(ImpMessage::Reset { .. }) => continue 'hello,
                    Incoming::Message(_) | Incoming::Unreadable { .. } => {}
                }
            }
        }
    }
}

fn nonsense(op: &str, outcome: &OpOutcome) -> AgentError {
    let what = match outcome {
        OpOutcome::Vfs(_) => "a list of VFs",
        OpOutcome::Vf(_) => "a VF",
        OpOutcome::Done => "'done'",
        OpOutcome::Stats(_) => "statistics",
    };
    AgentError::Nonsense(format!("{what} to '{op}'"))
}
