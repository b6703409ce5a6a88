//! Moving a simulated partition. Its process stays where it is, as what is real in it (its agent) is not to be carried: at the other end a
//! new one is begun. Everything else is as with machines: a state that takes the way it is given, in pieces; two that stand still at the end;
//! one that is resumed. Standing still is real, too: a process is stopped by a signal, or has not begun to boot.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{Arc, Mutex},
};

use ioward_model::{Accelerator, KindName, MachineLayout, Migration, Name};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::AbortHandle,
};

use super::{Machine, Partition, SimHypervisor, io_error};
use crate::{HypervisorError, lock::lock, not_moved};

/// The one type of machine.
const TYPE: &str = "pc-q35-simulated";
/// What there is of state, in bytes: more than a socket keeps for who does not read.
const TOTAL: u64 = 1 << 20;
const PIECE: usize = 16 << 10;

/// A move of one partition, away from here or to here.
pub(super) struct Moving {
    to_here: bool,
    seen: Arc<Mutex<Migration>>,
    carrier: AbortHandle,
}

impl Moving {
    /// How far it is.
    pub(super) fn seen(&self) -> Migration {
        lock(&self.seen).clone()
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Partition {
    fn refuse(&self, why: &str) -> HypervisorError {
        HypervisorError::NotMoved { partition: self.name.clone(), why: why.into() }
    }

    fn running(&self) -> Result<Arc<Machine>, HypervisorError> {
        if self.kind != KindName::Machine {
            return Err(not_moved(&self.name));
        }
        self.machine().ok_or_else(|| HypervisorError::NotRunning(self.name.clone()))
    }

    fn migration(&self) -> Migration {
        lock(&self.now).moving.as_ref().map_or(Migration::None, Moving::seen)
    }

    /// As in a machine: nothing is plugged into one that is on its way.
    pub(super) fn check_stays(&self) -> Result<(), HypervisorError> {
        match self.migration() {
            Migration::None | Migration::Failed { .. } => Ok(()),
            Migration::UnderWay { .. } | Migration::Complete => {
                Err(self.refuse("it is being moved, and is changed only before or afterwards"))
            }
        }
    }
}

impl SimHypervisor {
    pub(super) async fn layout_now(&self, name: &Name) -> Result<MachineLayout, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        partition.running()?;
        let now = lock(&partition.now);
        Ok(MachineLayout {
            machine: TYPE
                .parse()
                .map_err(|error: ioward_model::MachineTypeError| partition.refuse(&error.to_string()))?,
            accelerator: Accelerator::Sim,
            channel: now.channel,
            standbys: now.standbys.keys().cloned().zip(1..).collect(),
        })
    }

    pub(super) async fn receive_now(
        &self,
        name: &Name,
        layout: &MachineLayout,
    ) -> Result<OwnedFd, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if partition.kind != KindName::Machine {
            return Err(not_moved(name));
        }
        if partition.machine().is_some() {
            return Err(HypervisorError::Running(name.clone()));
        }
        {
            let now = lock(&partition.now);
            if !now.vfs.is_empty() {
                return Err(partition.refuse("it holds VFs, and those are given to it only once it runs"));
            }
            let is_alike = now.channel == layout.channel
                && layout.accelerator == Accelerator::Sim
                && now.standbys.keys().eq(layout.standbys.keys());
            if !is_alike {
                return Err(partition.refuse("its machine has another channel or other standbys"));
            }
        }
        let (ours, its) = self.way(&partition)?;
        let machine = self.spawn(&partition)?;
        machine.tell(&ioward_channel::control::ToPartition::Name(name.clone()), &[]).await?;
        self.begin(&partition, true, async move |seen: Arc<Mutex<Migration>>| {
            if take(its, &seen).await.is_err() {
                *lock(&seen) = Migration::Failed { why: "its state did not come wholly".into() };
                // As QEMU does.
                let _expected = machine.expect_end();
                machine.kill();
                machine.gone().await;
            }
        });
        Ok(ours)
    }

    pub(super) async fn send_now(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        let machine = partition.running()?;
        partition.check_stays().map_err(|_| partition.refuse("it is being moved already"))?;
        if !lock(&partition.now).vfs.is_empty() {
            return Err(partition.refuse("it holds VFs, and those do not go along; detach them first"));
        }
        let (ours, its) = self.way(&partition)?;
        self.begin(&partition, false, async move |seen: Arc<Mutex<Migration>>| {
            if give(its, &seen).await.is_err() {
                *lock(&seen) = Migration::Failed { why: "the way is cut off".into() };
                return;
            }
            machine.freeze(true);
            *lock(&seen) = Migration::Complete;
        });
        Ok(ours)
    }

    pub(super) async fn migration_now(&self, name: &Name) -> Result<Migration, HypervisorError> {
        let partition = self.partition(name)?;
        partition.running()?;
        Ok(partition.migration())
    }

    pub(super) async fn resume_now(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        let machine = partition.running()?;
        let Some(moving) = lock(&partition.now).moving.take() else { return Ok(()) };
        match (moving.to_here, moving.seen()) {
            (true, Migration::Complete) => {
                let (channel, vfs) = {
                    let now = lock(&partition.now);
                    (now.channel, now.vfs.clone())
                };
                self.boot(&machine, channel, &vfs).await
            }
            (true, _) => {
                lock(&partition.now).moving = Some(moving);
                Err(partition.refuse("its state has not come wholly, and it can't run without"))
            }
            (false, _) => {
                drop(moving);
                machine.freeze(false);
                Ok(())
            }
        }
    }

    /// Two ends of a way for the state.
    fn way(&self, partition: &Partition) -> Result<(OwnedFd, UnixStream), HypervisorError> {
        let made = || {
            let (ours, its) = StdUnixStream::pair()?;
            its.set_nonblocking(true)?;
            Ok((ours.into(), UnixStream::from_std(its)?))
        };
        made().map_err(io_error("make a way for the state of", &partition.folder))
    }

    fn begin<C, F>(&self, partition: &Arc<Partition>, to_here: bool, carry: C)
    where
        C: FnOnce(Arc<Mutex<Migration>>) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let under_way = Migration::UnderWay { sent: 0, remaining: TOTAL, total: TOTAL };
        let seen = Arc::new(Mutex::new(under_way));
        let carrier = lock(&self.watchers).spawn(carry(Arc::clone(&seen)));
        lock(&partition.now).moving = Some(Moving { to_here, seen, carrier });
    }
}

async fn give(mut way: UnixStream, seen: &Mutex<Migration>) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < TOTAL {
        way.write_all(&[0; PIECE]).await?;
        sent += PIECE as u64;
        *lock(seen) = Migration::UnderWay { sent, remaining: TOTAL - sent, total: TOTAL };
    }
    way.shutdown().await
}

async fn take(mut way: UnixStream, seen: &Mutex<Migration>) -> std::io::Result<()> {
    let (mut taken, mut piece) = (0, [0; PIECE]);
    while taken < TOTAL {
        taken += match way.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => length as u64,
        };
        *lock(seen) =
            Migration::UnderWay { sent: taken, remaining: TOTAL.saturating_sub(taken), total: TOTAL };
    }
    *lock(seen) = Migration::Complete;
    Ok(())
}
