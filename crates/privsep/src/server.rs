//! The hypervisor side's end: does what the management partition asks for, where that may be asked for.
//!
//! The [`Guard`] refuses what a hypervisor must never do; the side that does the work refuses functions that are no VFs of the PF
//! that is named, and boots from files that were given to machines. Here is what only a peer that is not believed could ask for.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{ChannelEnd, Claim, Guard, Hypervisor, HypervisorError};
use ioward_model::{Recovery, VfId};
use ioward_pci::Bdf;
use serde::Serialize;
use tokio::{
    net::UnixStream,
    sync::mpsc,
    task::{AbortHandle, JoinSet},
};

use crate::{
    link::{Frame, LinkError, MAX_FROM_HOST, Reader, write_frame},
    protocol::{Call, Failure, Life, MAX_CALLS, ToHost, ToImp, operations},
};

/// Answers that may wait for the management partition to read them.
const MAX_ANSWERS: usize = 16;
/// The longest text of the management partition that a person is shown, in characters.
const MAX_TEXT: usize = 2000;
/// Between two looks at an adapter that is stuck.
const LOOK_AT_STUCK: Duration = Duration::from_secs(1);

/// News of the management partition about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// For the service manager.
    Life(Life),
    /// Why it ends. Printable, and not too long.
    Failed(String),
}

/// Serves one management partition.
pub struct Server {
    fabric: Arc<dyn Fabric>,
    hypervisor: Arc<Guard>,
}

/// Calls under way, by their number.
type UnderWay = Arc<Mutex<HashMap<u64, AbortHandle>>>;

impl Server {
    /// Over this machine.
    #[must_use]
    pub fn new(fabric: Arc<dyn Fabric>, hypervisor: Arc<Guard>) -> Arc<Self> {
        Arc::new(Self { fabric, hypervisor })
    }

    /// Serves until the other side closes. `stop` has it told to end; what it says of itself goes to `words`. What is under way
    /// then is finished.
    ///
    /// # Errors
    /// When the other side sends what makes no sense: nothing of it is done any more.
    pub async fn serve(
        self: Arc<Self>,
        stream: UnixStream,
        words: mpsc::UnboundedSender<Word>,
        mut stop: mpsc::Receiver<()>,
    ) -> Result<(), LinkError> {
        let stream = Arc::new(stream);
        let (answers, to_imp) = mpsc::channel(MAX_ANSWERS);
        let mut changes = self.fabric.changes().await;
        let mut events = self.hypervisor.events().await;
        let news = answers.clone();
        let newsman = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    Some(()) = changes.recv() => ToImp::Changed,
                    Some(event) = events.recv() => ToImp::Happened(event),
                    Some(()) = stop.recv() => ToImp::Stop,
                    else => break,
                };
                if let Some(frame) = sendable(Frame::new(&message, MAX_FROM_HOST))
                    && news.send(frame).await.is_err()
                {
                    break;
                }
            }
        });
        let writer = tokio::spawn(write(Arc::clone(&stream), to_imp));
        let mut calls = JoinSet::new();
        let served = self.read(Reader::of_host(stream), &answers, &words, &mut calls).await;
        newsman.abort();
        // Nobody reads answers any more, or nobody who is to have any: no call is to wait for that.
        writer.abort();
        if served.is_err() {
            calls.abort_all();
        }
        while calls.join_next().await.is_some() {}
        served
    }

    /// Never waits for anything but the next frame: it may be one that ends what would be waited for.
    async fn read(
        self: Arc<Self>,
        mut frames: Reader,
        answers: &mpsc::Sender<Frame>,
        words: &mpsc::UnboundedSender<Word>,
        calls: &mut JoinSet<()>,
    ) -> Result<(), LinkError> {
        let under_way = UnderWay::default();
        while let Some(received) = frames.next().await? {
            let word = match received.message {
                ToHost::Call { id, call } => {
                    while calls.try_join_next().is_some() {}
                    let mut table = lock(&under_way);
                    if table.len() >= MAX_CALLS || table.contains_key(&id) {
                        let why = format!("more than {MAX_CALLS} calls at once, or two of one number");
                        return Err(LinkError::Nonsense(why));
                    }
                    let call = Arc::clone(&self).carry_out(id, call, answers.clone(), Arc::clone(&under_way));
                    table.insert(id, calls.spawn(call));
                    continue;
                }
                ToHost::GiveUp { id } => {
                    if let Some(call) = lock(&under_way).remove(&id) {
                        call.abort();
                    }
                    continue;
                }
                ToHost::Life(life) => Word::Life(life),
                ToHost::Failed(why) => Word::Failed(printable(&why)),
            };
            let _ = words.send(word);
        }
        Ok(())
    }

    async fn carry_out(
        self: Arc<Self>,
        id: u64,
        call: Call,
        answers: mpsc::Sender<Frame>,
        under_way: UnderWay,
    ) {
        let answer = self.answer(id, call).await;
        let place = answers.reserve().await;
        // Before the answer is on its way: whoever has it may ask for something else at once.
        lock(&under_way).remove(&id);
        // Whoever asked may have gone.
        if let (Ok(place), Some(frame)) = (place, sendable(answer)) {
            place.send(frame);
        }
    }

    async fn answer(&self, id: u64, call: Call) -> Result<Frame, LinkError> {
        match call {
            Call::Bind { vf, driver } => answer(id, self.bind(vf, driver).await.map_err(Failure::Fabric)),
            Call::SetVfCount { pf, count } => {
                answer(id, self.set_vf_count(pf, count).await.map_err(Failure::Fabric))
            }
            Call::Recover { pf, how } => answer(id, self.recover(pf, how).await.map_err(Failure::Fabric)),
            Call::ConnectChannel { partition } => match self.hypervisor.connect_channel(&partition).await {
                Ok(ChannelEnd::Stream(stream)) => answer_with(id, stream),
                Ok(ChannelEnd::Shared(_)) => {
                    let why = "a channel in shared memory does not leave its process";
                    failed(id, Failure::Unsaid(why.into()))
                }
                Err(error) => failed(id, Failure::Hypervisor(error)),
            },
            Call::OpenConsole { partition } => answer_fd(id, self.hypervisor.open_console(&partition).await),
            Call::Receive { partition, layout } => {
                answer_fd(id, self.hypervisor.receive(&partition, &layout).await)
            }
            Call::Send { partition } => answer_fd(id, self.hypervisor.send(&partition).await),
            call => self.dispatch(id, call).await,
        }
    }

    /// As [`Fabric::bind`], unless the guard of what partitions hold has something against it.
    async fn bind(&self, vf: VfId, driver: Option<String>) -> Result<Option<String>, FabricError> {
        let address = self.fabric.vf_address(vf).await?;
        let what = format!("bind {vf} ({address}) to {}", driver.as_deref().unwrap_or("no driver"));
        let claim = self.hypervisor.rebind(vf.pf, address, driver.as_deref()).await;
        let claim = match claim {
            Ok(claim) => claim,
            Err(why) => return Err(self.busy(vf, what, why).await),
        };
        // From here on its PF keeps its VFs; until here it might have got others.
        if claim.is_some() && self.fabric.vf_address(vf).await? != address {
            return Err(self.busy(vf, what, "it is at another address now".into()).await);
        }
        let fabric = Arc::clone(&self.fabric);
        self.under(claim, what, vf, async move { fabric.bind(vf, driver.as_deref()).await }).await
    }

    /// As [`Fabric::set_vf_count`], unless a VF is being handed out or bound.
    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        let fabric = Arc::clone(&self.fabric);
        let change = async move { fabric.set_vf_count(pf, count).await };
        self.with_its_vfs(pf, format!("set {count} VFs on {pf}"), change).await
    }

    /// As [`Fabric::recover`], unless a VF is being handed out or bound: its VFs may go.
    async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
        let fabric = Arc::clone(&self.fabric);
        let change = async move { fabric.recover(pf, how).await };
        self.with_its_vfs(pf, format!("{how} ({pf})"), change).await
    }

    /// Changes a PF together with its VFs.
    async fn with_its_vfs(
        &self,
        pf: Bdf,
        what: String,
        change: impl Future<Output = Result<(), FabricError>> + Send + 'static,
    ) -> Result<(), FabricError> {
        let vf = VfId { pf, index: 0 };
        match self.hypervisor.recount(pf).await {
            Ok(claim) => self.under(Some(claim), what, vf, change).await,
            Err(why) => Err(self.busy(vf, what, why).await),
        }
    }

    /// The guard has something against it: where that is an act that does not end, the adapter is stuck.
    async fn busy(&self, vf: VfId, what: String, why: String) -> FabricError {
        match self.fabric.driver(vf).await {
            Err(stuck @ FabricError::Stuck { .. }) => stuck,
            _ => FabricError::Refused { what, why, source: rustix::io::Errno::BUSY.into() },
        }
    }

    /// Changes an adapter. In a task of its own: what the kernel is at goes on when the call is given up, and so does the claim,
    /// until a look at `vf` shows that the adapter answers.
    async fn under<T: Send + 'static>(
        &self,
        claim: Option<Claim>,
        what: String,
        vf: VfId,
        change: impl Future<Output = Result<T, FabricError>> + Send + 'static,
    ) -> Result<T, FabricError> {
        let fabric = Arc::clone(&self.fabric);
        let changed = tokio::spawn(async move {
            let changed = change.await;
            if let (Err(FabricError::Stuck { .. }), Some(claim)) = (&changed, claim) {
                tokio::spawn(async move {
                    while matches!(fabric.driver(vf).await, Err(FabricError::Stuck { .. })) {
                        tokio::time::sleep(LOOK_AT_STUCK).await;
                    }
                    drop(claim);
                });
            }
            changed
        });
        let cut_off = |error: tokio::task::JoinError| FabricError::Refused {
            what,
            why: "it was cut off: the daemon is stopping".into(),
            source: std::io::Error::other(error),
        };
        changed.await.map_err(cut_off)?
    }
}

macro_rules! dispatch {
    (
        fabric {
            $($f_variant:ident $f_method:ident($($f_arg:ident: $(@ $f_by:tt)? $f_type:ty),*) -> $f_result:ty;)*
        }
        hypervisor {
            $($h_variant:ident $h_method:ident($($h_arg:ident: $(@ $h_by:tt)? $h_type:ty),*) -> $h_result:ty;)*
        }
    ) => {
        impl Server {
            async fn dispatch(&self, id: u64, call: Call) -> Result<Frame, LinkError> {
                match call {
                    $(Call::$f_variant { $($f_arg),* } => {
                        let result = self.fabric.$f_method($($($f_by)? $f_arg),*).await;
                        answer(id, result.map_err(Failure::Fabric))
                    })*
                    $(Call::$h_variant { $($h_arg),* } => {
                        let result = self.hypervisor.$h_method($($($h_by)? $h_arg),*).await;
                        answer(id, result.map_err(Failure::Hypervisor))
                    })*
                    Call::Bind { .. }
                    | Call::SetVfCount { .. }
                    | Call::Recover { .. }
                    | Call::ConnectChannel { .. }
                    | Call::OpenConsole { .. }
                    | Call::Receive { .. }
                    | Call::Send { .. } => {
                        failed(id, Failure::Unsaid("it is no plain call".into()))
                    }
                }
            }
        }
    };
}

operations!(dispatch);

fn answer<T: Serialize>(id: u64, result: Result<T, Failure>) -> Result<Frame, LinkError> {
    match result {
        Ok(value) => {
            let message = ToImp::Answer { id, result: Ok(()), with_fd: false };
            let frame = Frame::with_value(&message, &value, MAX_FROM_HOST);
            frame.or_else(|error| failed(id, Failure::Unsaid(error.to_string())))
        }
        Err(failure) => failed(id, failure),
    }
}

fn answer_fd(id: u64, result: Result<OwnedFd, HypervisorError>) -> Result<Frame, LinkError> {
    match result {
        Ok(stream) => answer_with(id, stream),
        Err(error) => failed(id, Failure::Hypervisor(error)),
    }
}

fn answer_with(id: u64, fd: OwnedFd) -> Result<Frame, LinkError> {
    let message = ToImp::Answer { id, result: Ok(()), with_fd: true };
    Ok(Frame::new(&message, MAX_FROM_HOST)?.with_fd(fd))
}

fn failed(id: u64, failure: Failure) -> Result<Frame, LinkError> {
    Frame::new(&ToImp::Answer { id, result: Err(failure), with_fd: false }, MAX_FROM_HOST)
}

fn sendable(frame: Result<Frame, LinkError>) -> Option<Frame> {
    frame.inspect_err(|error| tracing::error!("not sent: {error}")).ok()
}

/// The guarded value is whole after every statement, so a poisoned mutex is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text of a peer that is not believed, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn write(stream: Arc<UnixStream>, mut answers: mpsc::Receiver<Frame>) {
    while let Some(frame) = answers.recv().await {
        if let Err(error) = write_frame(&stream, frame).await {
            // Its reader sees that too, where the other side has gone.
            tracing::debug!("not sent: {error}");
        }
    }
}
