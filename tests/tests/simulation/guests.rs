//! [`Guest`]: whoever is at the other end of a partition's channel. It asks for one thing and waits for the answer, or does for a
//! while whatever an honest, a confused or a hostile guest does.

use std::sync::Arc;

use ioward_channel::{AgentMessage, ImpMessage};
use ioward_imp::Imp;
use ioward_model::{
    GuestMay, Name, OpError, OpErrorKind, OpOutcome, Owner, PartitionSpec, Plan, State, Step, VfOp,
};
use ioward_tests::guest_end::{GuestEnd, encoded};

use crate::{
    actions::{Chooser, may},
    host::Host,
    hypervisor::ModelHypervisor,
    ledger::Ledger,
    random::Random,
    world::Wrong,
};

/// So often a guest does something while a plan runs.
const ACTS: usize = 8;

/// The answer to a request.
pub type Answer = Result<OpOutcome, OpError>;

/// A guest, with or without a connection.
#[derive(Debug)]
pub struct Guest {
    pub partition: Name,
    hypervisor: Arc<ModelHypervisor>,
    /// It has said hello on it.
    end: Option<GuestEnd>,
    /// It hung up, and is connected again only after a while.
    has_hung_up: bool,
}

/// Everything that a guest acts by, beside its channel.
pub struct Acting {
    pub imp: Arc<Imp>,
    pub host: Host,
    pub ledger: Ledger,
    pub random: Random,
    /// What the plan that is carried out meanwhile makes of the partition.
    pub planned: Option<PartitionSpec>,
}

/// What a plan makes of a partition; `None` when it leaves its Spec as it is.
pub fn planned(plan: &Plan, partition: &Name) -> Option<PartitionSpec> {
    plan.steps.iter().find_map(|step| match step {
        Step::DefinePartition { to, .. } if to.name == *partition => Some(to.clone()),
        _ => None,
    })
}

impl Guest {
    pub fn new(partition: Name, hypervisor: Arc<ModelHypervisor>) -> Self {
        Self { partition, hypervisor, end: None, has_hung_up: false }
    }

    /// Requests an operation; `None` without a channel, which the machine has when it runs and holds VFs.
    pub async fn ask(&mut self, op: &VfOp) -> Result<Option<Answer>, Wrong> {
        while let Some(end) = self.connect(true).await? {
            let id = end.ask(op.clone()).await;
            if let Some(answer) = answer(end, id).await {
                return Ok(Some(answer));
            }
            // It was an end of before, which nobody listens to any more.
            self.end = None;
        }
        Ok(None)
    }

    /// The present connection, or the next one; `None` without a channel, or where there is none yet for who is not `patient`.
    async fn connect(&mut self, patient: bool) -> Result<Option<&mut GuestEnd>, Wrong> {
        while self.end.is_none() {
            let Some(end) = self.hypervisor.guest_end(&self.partition, patient).await? else {
                return Ok(None);
            };
            let mut end = GuestEnd::new(end).map_err(|error| error.to_string())?;
            self.has_hung_up = false;
            if self.is_welcome(&mut end).await? {
                self.end = Some(end);
            }
        }
        Ok(self.end.as_mut())
    }

    /// Says hello. False when it is cut off meanwhile.
    async fn is_welcome(&self, end: &mut GuestEnd) -> Result<bool, Wrong> {
        match end.hear().await {
            None => return Ok(false),
            Some(ImpMessage::Reset { .. }) => {}
            Some(other) => return Err(format!("{} hears first: {other:?}", self.partition)),
        }
        let nonce = end.hello().await;
        match end.hear().await {
            None => Ok(false),
            Some(ImpMessage::Welcome(welcome))
                if (welcome.nonce, &welcome.partition) == (nonce, &self.partition) =>
            {
                Ok(true)
            }
            Some(other) => Err(format!("{} says hello, and hears: {other:?}", self.partition)),
        }
    }

    fn hang_up(&mut self) {
        (self.end, self.has_hung_up) = (None, true);
    }

    /// Acts for a while. Returns itself, and how much it was granted.
    pub async fn act(mut self, mut acting: Acting) -> Result<(Self, usize), Wrong> {
        let mut granted = 0;
        for _ in 0..ACTS {
            let patient = !self.has_hung_up || acting.random.percent(10);
            match self.connect(patient).await? {
                Some(_) => granted += self.act_once(&mut acting).await?,
                // Its machine may be about to start.
                None => tokio::task::yield_now().await,
            }
        }
        Ok((self, granted))
    }

    async fn act_once(&mut self, acting: &mut Acting) -> Result<usize, Wrong> {
        let state = acting.imp.state();
        let op = self.op(acting, &state);
        let partition = self.partition.clone();
        let Some(end) = self.end.as_mut() else { return Ok(0) };
        let request = || encoded(&AgentMessage::Request { id: u32::MAX, op: op.clone() });
        match acting.random.below(40) {
            0 => {
                let bytes = acting.random.next().to_be_bytes();
                end.write(&[&bytes[..], &[0]].concat()).await;
            }
            1 => end.garbage().await,
            n @ (2 | 3) => {
                acting.ledger.is_not_sent(&op);
                let request = request();
                // Without the last byte alone it would be whole with what follows.
                let length = acting.random.below(u16::try_from(request.len() - 1).unwrap());
                end.write(&request[..usize::from(length)]).await;
                if n == 3 {
                    self.hang_up();
                } else {
                    // As whoever writes to the port next begins.
                    end.write(&ioward_channel::stream::START).await;
                }
            }
            4 => {
                end.write(&request()).await;
                self.hang_up();
            }
            5 => _ = end.hello().await,
            6 => end.send(&AgentMessage::Subscribe { id: 0 }).await,
            7..=10 => {
                let (first, second) = (end.ask(op.clone()).await, end.ask(VfOp::List).await);
                let (first, second) = (answer(end, first).await, answer(end, second).await);
                let granted =
                    first.map_or(Ok(0), |answer| is_right(acting, &partition, &state, &op, answer))?;
                let listed = second.map_or(Ok(0), |answer| {
                    is_right(acting, &partition, &acting.imp.state(), &VfOp::List, answer)
                })?;
                return Ok(granted + listed);
            }
            _ => {
                let id = end.ask(op.clone()).await;
                match answer(end, id).await {
                    Some(answer) => return is_right(acting, &partition, &state, &op, answer),
                    None => self.end = None,
                }
            }
        }
        Ok(0)
    }

    /// Something to ask for; every other MAC is one that nobody else asks for.
    fn op(&self, acting: &mut Acting, state: &State) -> VfOp {
        let Acting { host, ledger, random, .. } = acting;
        let mut op = Chooser { random, host, state }.op_of(&self.partition);
        if let VfOp::Set { vf, change } = &mut op
            && change.mac.is_some()
            && random.percent(50)
        {
            change.mac = Some(ledger.mark(Owner { partition: self.partition.clone(), vf: vf.clone() }));
        }
        op
    }
}

/// The answer to a request, past whatever else is said; `None` when the guest is cut off before.
async fn answer(end: &mut GuestEnd, request: u32) -> Option<Answer> {
    loop {
        match end.hear().await? {
            ImpMessage::Response { id, result, .. } if id == request => return Some(result),
            ImpMessage::Error(error) if error.id == request => {
                return Some(Err(OpError::new(OpErrorKind::Invalid, error.message)));
            }
            _ => {}
        }
    }
}

/// Whether an answer is one that `guest_may` gives: in the Spec as it was `before` or is now, or in the one that a plan makes of it. A plan
/// that is undone may have come and gone in between. Returns how much is granted.
fn is_right(
    acting: &Acting,
    partition: &Name,
    before: &State,
    op: &VfOp,
    answer: Answer,
) -> Result<usize, Wrong> {
    if matches!(op, VfOp::Set { .. }) && answer.is_ok() {
        acting.ledger.is_told(partition, op);
    }
    let now = acting.imp.state();
    let noted = |state: &State| state.partitions.get(partition).map(|held| held.spec.clone());
    let specs: Vec<_> = [noted(before), noted(&now), acting.planned.clone()].into_iter().flatten().collect();
    let is_possible = match &answer {
        Ok(_) if *op == VfOp::List => true,
        Ok(_) => requests(&specs, op).any(|guest_may| may(guest_may, op)),
        Err(no) if no.kind == OpErrorKind::Denied => {
            requests(&specs, op).any(|guest_may| !may(guest_may, op))
        }
        Err(_) => true,
    };
    if !is_possible {
        let may: Vec<_> = requests(&specs, op).collect();
        return Err(format!("{partition} may {may:?}, asks {op:?}, and hears {answer:?}"));
    }
    match (op.vf(), &answer) {
        (Some(vf), Ok(OpOutcome::Vf(view))) if view.name != *vf => {
            Err(format!("{partition} asks {op:?}, and hears {answer:?}"))
        }
        _ => Ok(usize::from(answer.is_ok())),
    }
}

/// What is allowed to the VF of an operation, in each of these Specs that has it.
fn requests<'a>(specs: &'a [PartitionSpec], op: &'a VfOp) -> impl Iterator<Item = &'a GuestMay> {
    specs.iter().filter_map(|spec| Some(&spec.vf(op.vf()?)?.guest_may))
}
