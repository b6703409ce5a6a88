//! Rows of the lists of partitions and functions.

use std::collections::BTreeSet;

use ioward_api::{Candidate, Compatible};
use ioward_model::{Name, Owner, Reason};
use ioward_pci::Bdf;

/// A row of the list of partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// A partition.
    Partition(Name),
    /// A VF that it asks for.
    Vf(Owner),
}

impl Row {
    /// The partition that it is, or is of.
    #[must_use]
    pub fn partition(&self) -> &Name {
        match self {
            Self::Partition(name) => name,
            Self::Vf(owner) => &owner.partition,
        }
    }
}

/// The functions for one request: adapters, each with its VFs when it is open.
#[derive(Clone, Debug)]
pub struct Functions {
    /// The request.
    pub owner: Owner,
    /// By adapter, those that suit first, as the daemon has them.
    pub adapters: Vec<Adapter>,
    open: BTreeSet<Bdf>,
    /// The row under the cursor.
    pub at: usize,
}

/// An adapter with the VFs that it has or could have.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The PF.
    pub pf: Bdf,
    /// Its VFs.
    pub vfs: Vec<Candidate>,
}

impl Adapter {
    /// How many of its VFs suit.
    #[must_use]
    pub fn suiting(&self) -> usize {
        self.vfs.iter().filter(|vf| vf.reasons.is_empty()).count()
    }
}

/// A row of the list of functions.
#[derive(Clone, Copy, Debug)]
pub enum Function<'a> {
    /// Whichever suits.
    Whichever,
    /// Any VF of an adapter.
    Any(&'a Adapter),
    /// A VF.
    Vf(&'a Candidate),
}

impl<'a> Function<'a> {
    /// Why it can't be chosen; nothing: it can. What is said of an adapter none of whose VFs suits is said of its first.
    #[must_use]
    pub fn reasons(self) -> &'a [Reason] {
        match self {
            Self::Whichever => &[],
            Self::Any(adapter) if adapter.suiting() > 0 => &[],
            Self::Any(adapter) => adapter.vfs.first().map_or(&[], |vf| &vf.reasons),
            Self::Vf(vf) => &vf.reasons,
        }
    }

    /// The PF and the VF index that choosing it pins.
    #[must_use]
    pub fn pins(self) -> (Option<Bdf>, Option<u16>) {
        match self {
            Self::Whichever => (None, None),
            Self::Any(adapter) => (Some(adapter.pf), None),
            Self::Vf(vf) => (Some(vf.vf.pf), Some(vf.vf.index)),
        }
    }
}

impl Functions {
    /// The list, with the cursor on what is pinned now.
    #[must_use]
    pub fn new(found: Compatible, pinned: (Option<Bdf>, Option<u16>)) -> Self {
        let mut adapters: Vec<Adapter> = Vec::new();
        for candidate in found.candidates {
            match adapters.iter_mut().find(|adapter| adapter.pf == candidate.vf.pf) {
                Some(adapter) => adapter.vfs.push(candidate),
                None => adapters.push(Adapter { pf: candidate.vf.pf, vfs: vec![candidate] }),
            }
        }
        for adapter in &mut adapters {
            adapter.vfs.sort_by_key(|vf| vf.vf.index);
        }
        let open = pinned.0.filter(|_| pinned.1.is_some()).into_iter().collect();
        let mut functions = Self { owner: found.request, adapters, open, at: 0 };
        functions.at = functions.rows().iter().position(|row| row.pins() == pinned).unwrap_or(0);
        functions
    }

    /// The rows, as they are open and closed now.
    #[must_use]
    pub fn rows(&self) -> Vec<Function<'_>> {
        let mut rows = vec![Function::Whichever];
        for adapter in &self.adapters {
            rows.push(Function::Any(adapter));
            if self.is_open(adapter.pf) {
                rows.extend(adapter.vfs.iter().map(Function::Vf));
            }
        }
        rows
    }

    /// The row under the cursor.
    #[must_use]
    pub fn current(&self) -> Function<'_> {
        self.rows().get(self.at).copied().unwrap_or(Function::Whichever)
    }

    /// Whether an adapter shows its VFs.
    #[must_use]
    pub fn is_open(&self, pf: Bdf) -> bool {
        self.open.contains(&pf)
    }

    /// Shows the VFs of the adapter under the cursor, or hides them again.
    pub fn open(&mut self, open: bool) {
        let (Some(pf), _) = self.current().pins() else { return };
        if open {
            self.open.insert(pf)
        } else {
            self.open.remove(&pf)
        };
        if !open {
            let is_it = |row: &Function<'_>| row.pins() == (Some(pf), None);
            self.at = self.rows().iter().position(is_it).unwrap_or(0);
        }
    }
}
