//! Adapters that are not where they were: what is noted of them goes where they are. And who they are, which is noted as it is
//! found out. Where they are is worked out in [`ioward_model::Whereabouts`].
//!
//! ```text
//!   a daemon starts ─> what the one before was in the middle of is undone, by the addresses it has noted
//!                   ─> look ─> moves ─> all rows that name them, in one transaction ─> told ─> restoring
//! ```
//!
//! No plan is under way meanwhile, and no journal that has not ended names an address from before: that was undone.

use std::sync::Arc;

use ioward_model::{EventKind, Inventory, Move, PartitionState, RowKey, State, Whereabouts};

use crate::{
    error::error_chain,
    events::EventLog,
    look::Looks,
    notes::{Must, Notes},
};

/// The part that follows adapters.
pub(crate) struct Relocation {
    pub(crate) notes: Arc<Notes>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) looks: Arc<Looks>,
}

impl Relocation {
    /// Whether [`Relocation::follow`] has something to do.
    pub(crate) fn has_news(&self, inventory: &Inventory) -> bool {
        let booted = self.looks.has_booted();
        self.notes.look(|state| {
            let whereabouts = Whereabouts::of(state, inventory, booted);
            !moves(state, &whereabouts, booted).is_empty()
                || !whereabouts.identities(state, inventory).is_empty()
        })
    }

    /// Notes adapters where they are, and who they are, and tells of it. Whether anything that is noted has moved. To be called
    /// while nothing is being changed.
    pub(crate) fn follow(&self, inventory: &Inventory) -> bool {
        let booted = self.looks.has_booted();
        let whereabouts = |notes: &Notes| notes.look(|state| Whereabouts::of(state, inventory, booted));
        let before = self.notes.state();
        let moves = moves(&before, &whereabouts(&self.notes), booted);
        let has_moved = !moves.is_empty() && self.note_moves(&before, &moves);
        self.note_identities(&whereabouts(&self.notes), inventory);
        has_moved
    }

    /// False when it can't be written down: then all of it is as before, and tried again.
    fn note_moves(&self, before: &State, moves: &[Move]) -> bool {
        let rows = |state: &State| state.rows_of_moves(moves);
        let noted = self.notes.change(Must::BeWritten, rows, Vec::new(), |state| state.move_adapters(moves));
        if let Err(error) = noted {
            tracing::error!("adapters have moved, which cannot be written down: {}", error_chain(&error));
            return false;
        }
        for Move { from, to, is_there } in moves {
            let identity = before.identity(*from).cloned();
            let Some(identity) = identity else { continue };
            let (from, to) = (*from, *to);
            self.events.emit(match is_there {
                true => EventKind::AdapterMoved { from, to, identity },
                false => EventKind::AdapterSetAside { from, to, identity },
            });
        }
        true
    }

    fn note_identities(&self, whereabouts: &Whereabouts, inventory: &Inventory) {
        let identities = self.notes.look(|state| whereabouts.identities(state, inventory));
        if identities.is_empty() {
            return;
        }
        let rows = |_: &State| identities.keys().copied().map(RowKey::Adapter).collect();
        let noted = self.notes.change(Must::BeWritten, rows, Vec::new(), |state| {
            for (pf, identity) in &identities {
                if let Some(adapter) = state.adapters.get_mut(pf) {
                    adapter.identity.clone_from(identity);
                }
            }
        });
        if let Err(error) = noted {
            tracing::error!("who adapters are cannot be written down: {}", error_chain(&error));
        }
    }
}

/// How what is noted is to be changed. While a partition runs that has VFs of an adapter, they are where they were for it: an
/// adapter is followed only then when nobody has anything of it in hand. What others have started since a boot has no VF until ioward
/// has made them again.
fn moves(state: &State, whereabouts: &Whereabouts, booted: bool) -> Vec<Move> {
    let moves = whereabouts.moves();
    let runs_with_vfs =
        |partition: &PartitionState| partition.running && (partition.spec.machine().is_some() || !booted);
    let is_in_use = |one: &Move| {
        state.assignments().any(|(owner, held)| {
            held.vf.pf == one.from && state.partitions.get(&owner.partition).is_some_and(runs_with_vfs)
        })
    };
    // They are one permutation, or several: what gives way does so for another.
    if moves.iter().any(is_in_use) { Vec::new() } else { moves }
}
