//! What whoever carries between two hosts asks of the daemon, and what a move is in the way of.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use ioward_api::Leaving;
use ioward_model::{
    Name, State, VfRequest,
    handover::{MoveId, MovedPartition, ToSource, ToTarget},
};
use tokio::time::sleep;

use super::LOOK_EACH;
use crate::{error::ImpError, imp::Imp};

impl Imp {
    /// Begins to move a partition to another host, named `peer` for people, where it is to have the VFs that are `wanted`. `id` is drawn at
    /// random by whoever asks. What the target is to be offered.
    ///
    /// # Errors
    /// When it can't be moved, something else is being changed, or that can't be noted.
    pub async fn begin_move(
        &self,
        id: MoveId,
        partition: &Name,
        peer: &str,
        wanted: Vec<VfRequest>,
    ) -> Result<MovedPartition, ImpError> {
        let _nothing_changes = self.begin_change(Duration::ZERO).await?;
        self.moves.begin(id, partition, peer, wanted).await
    }

    /// What the target of a move has said; what it is to be told.
    pub async fn move_source_hears(&self, id: MoveId, messages: &[ToSource]) -> Leaving {
        self.moves.source_hears(id, messages).await
    }

    /// What the source of a move has said, with its offer beside [`ToTarget::Prepare`]: the partition, and the source's name for people.
    /// What it is to be told. VFs are kept for a partition from then on that it is taken in.
    ///
    /// # Errors
    /// When the host can't be looked at, to know whether it has VFs for it.
    pub async fn move_target_hears(
        &self,
        id: MoveId,
        messages: &[ToTarget],
        offer: Option<(&MovedPartition, &str)>,
    ) -> Result<Vec<ToSource>, ImpError> {
        let is_new = messages.iter().any(|message| matches!(message, ToTarget::Prepare));
        let Some((moved, _)) = offer.filter(|_| is_new) else {
            return Ok(self.moves.target_hears(id, messages, offer).await);
        };
        // No plan takes meanwhile what is found free here.
        let _nothing_changes = self.begin_change(Duration::ZERO).await?;
        if self.notes.look(|state| state.moving(id).is_none())
            && let Err(reasons) = self.planning.check_offer(moved).await?
        {
            let why = reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Ok(vec![ToSource::Refused { why }]);
        }
        Ok(self.moves.target_hears(id, messages, offer).await)
    }

    /// The end of the way for the state of a machine that is moved: a stream socket that it comes out of, or goes into. It is given once.
    pub async fn move_way(&self, id: MoveId) -> Option<OwnedFd> {
        self.moves.way(id).await
    }

    /// Has a partition that is being moved away stay here. Whether that was still possible.
    pub async fn cancel_move(&self, id: MoveId) -> bool {
        self.moves.cancel(id, "somebody has cancelled it").await
    }

    /// Takes a partition that has come here wholly, and whose source is gone for good. Whether there is one.
    pub async fn accept_move(&self, partition: &Name) -> bool {
        self.moves.accept(partition).await
    }

    /// Gives up moves that nobody carries any more, for as long as the daemon lives. Without a move it sleeps.
    pub(crate) async fn follow_moves(self: Arc<Self>) {
        loop {
            self.moves.wait_for_one().await;
            sleep(LOOK_EACH).await;
            self.moves.give_up_uncarried().await;
        }
    }
}

/// Whether somebody moves one of these partitions: which, and to or from where.
pub(crate) fn moved_meanwhile<'a>(
    state: &State,
    mut partitions: impl Iterator<Item = &'a Name>,
) -> Option<(Name, String)> {
    partitions.find_map(|name| {
        let moving = state.moves.get(name).filter(|moving| !moving.is_settled())?;
        Some((name.clone(), moving.peer.clone()))
    })
}
