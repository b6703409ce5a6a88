//! Makes plans: what is known of the host and of the state goes to the planner, and what it returns is seen by a second pair of
//! eyes.

use std::{collections::BTreeSet, sync::Arc};

use ioward_api::Compatible;
use ioward_hypervisor::{Hypervisor, HypervisorError, Obstacle};
use ioward_model::{
    Intent, Inventory, Name, Options, PartitionKind, PartitionSpec, Plan, Policy, Reason, Rule, Spec, State,
    Step, handover::MovedPartition,
};
use tokio::sync::Semaphore;

use crate::{compatible, error::ImpError, look::Looks, notes::Notes, workers::off_the_workers};

/// So many plans are made at once, beside the one that is about to be carried out: each may take a processor for seconds.
const PLANS_AT_ONCE: usize = 2;

/// The part that makes plans.
pub(crate) struct Planning {
    looks: Arc<Looks>,
    notes: Arc<Notes>,
    hypervisor: Arc<dyn Hypervisor>,
    turns: Arc<Semaphore>,
}

impl Planning {
    pub(crate) fn new(looks: Arc<Looks>, notes: Arc<Notes>, hypervisor: Arc<dyn Hypervisor>) -> Self {
        Self { looks, notes, hypervisor, turns: Arc::new(Semaphore::new(PLANS_AT_ONCE)) }
    }

    /// Which functions suit each VF that a partition of a Spec asks for, and why the others do not.
    ///
    /// # Errors
    /// When the Spec makes no sense or has no such partition.
    pub(crate) async fn compatible(
        &self,
        spec: &Spec,
        partition: &Name,
    ) -> Result<Vec<Compatible>, ImpError> {
        spec.validate()?;
        let (inventory, state) = (self.looks.look().await?, self.notes.state());
        let (spec, partition) = (spec.clone(), partition.clone());
        let turn = self.turn_to_plan().await;
        off_the_workers(move || {
            let _turn = turn;
            compatible::compatible(&inventory, &state, &spec, &partition)
        })
        .await
    }

    /// Makes a plan for an intent.
    ///
    /// # Errors
    /// When the intent makes no sense, or rules forbid it.
    pub(crate) async fn plan(&self, intent: &Intent, options: &Options) -> Result<Plan, ImpError> {
        let turn = self.turn_to_plan().await;
        self.plan_now(intent, options, turn).await
    }

    /// Whether there are VFs for a partition that another host offers.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub(crate) async fn check_offer(
        &self,
        offered: &MovedPartition,
    ) -> Result<Result<(), Vec<Reason>>, ImpError> {
        let (inventory, state, offered) = (self.looks.look().await?, self.notes.state(), offered.clone());
        let turn = self.turn_to_plan().await;
        Ok(off_the_workers(move || {
            let _turn = turn;
            ioward_planner::check_offer(&inventory, &state, &offered)
        })
        .await)
    }

    async fn turn_to_plan(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    /// Makes a plan; keeps `turn` until it is made, which may be after the caller has gone away.
    pub(crate) async fn plan_now(
        &self,
        intent: &Intent,
        options: &Options,
        turn: impl Send + 'static,
    ) -> Result<Plan, ImpError> {
        if let Intent::Apply { spec } = intent {
            spec.validate()?;
        }
        if intent.policy() == Policy::BestEffort {
            let message =
                "only the daemon itself asks for a host to be reconciled; 'ioward drift' shows what differs";
            return Err(ImpError::Invalid(message.to_owned()));
        }
        let intent = &self.as_found(intent).await?;
        // A partition that can't boot, or is not there, is better refused before its VFs are made than undone after.
        let obstacles = self.obstacles(intent).await?;
        if !obstacles.is_empty() {
            return Err(refused(obstacles));
        }
        let (inventory, state) = (self.looks.look().await?, self.notes.state());
        let (wanted, options) = (intent.clone(), *options);
        let plan = off_the_workers(move || {
            let _turn = turn;
            plan_for(&inventory, &state, &wanted, &options)
        })
        .await?;
        let gone = self.gone(&plan).await?;
        if gone.is_empty() { Ok(plan) } else { Err(refused(gone)) }
    }

    /// Domains that are not there any more, and get something by a plan that is not about what they are: it would fail half way, and what
    /// was taken from them by then could not be given back.
    async fn gone(&self, plan: &Plan) -> Result<Vec<Reason>, ImpError> {
        let is_asked = |name: &Name| matches!(&plan.intent, Intent::Apply { spec } if spec.partitions.iter().any(|it| it.name == *name));
        let get = plan.steps.iter().filter_map(|step| match step {
            Step::AttachVf { owner, .. } => Some(&owner.partition),
            Step::CreateChannel { partition } | Step::StartPartition { partition } => Some(partition),
            _ => None,
        });
        let names: BTreeSet<_> = get.filter(|name| !is_asked(name)).collect();
        let spec = |name: &Name| self.notes.look(|state| Some(state.partitions.get(name)?.spec.clone()));
        let mut reasons = Vec::new();
        for partition in names.into_iter().filter_map(spec) {
            if matches!(partition.kind, PartitionKind::Domain(_)) {
                let obstacles = self.hypervisor.check_definition(&partition).await?;
                reasons.extend(obstacles.into_iter().map(|obstacle| in_the_way(&partition, obstacle)));
            }
        }
        Ok(reasons)
    }

    /// The intent with what the host has to say about it: what a domain has that is to be taken over. Whoever asked can't say that.
    async fn as_found(&self, intent: &Intent) -> Result<Intent, ImpError> {
        let Intent::Adopt { domain, partition, .. } = intent else { return Ok(intent.clone()) };
        let refuse = |found: String, remedy: &str| {
            let required = format!("a domain {domain} that libvirt knows, and a name for its partition");
            refused(vec![Reason::new(Rule::Domain, required, found).remedy(remedy)])
        };
        let found = match self.hypervisor.adoptable(domain).await {
            Err(error @ HypervisorError::NoSuchDomain { .. }) => {
                return Err(refuse(error.to_string(), "'virsh list --all' lists the domains"));
            }
            found => found?,
        };
        let named = partition.clone().map_or_else(|| found.name.parse::<Name>(), Ok);
        let named = named.map_err(|error| refuse(error.to_string(), "choose a name: --name NAME"))?;
        Ok(Intent::Adopt { domain: domain.clone(), partition: Some(named), found: Some(Box::new(found)) })
    }

    async fn obstacles(&self, intent: &Intent) -> Result<Vec<Reason>, ImpError> {
        let adopted;
        let partitions = match intent {
            Intent::Apply { spec } => &spec.partitions[..],
            Intent::Adopt { domain, partition: Some(name), .. } => {
                adopted = [PartitionSpec::new(name.clone(), domain.clone())];
                &adopted[..]
            }
            _ => return Ok(Vec::new()),
        };
        let mut reasons = Vec::new();
        for partition in partitions {
            let obstacles = self.hypervisor.check_definition(partition).await?;
            reasons.extend(obstacles.into_iter().map(|obstacle| in_the_way(partition, obstacle)));
        }
        Ok(reasons)
    }
}

/// A plan for this host, seen by a second pair of eyes. Pure: for a recorded host too.
///
/// # Errors
/// When it is refused, with what would have to give way; [`ImpError::Unsound`] never, unless the planner is broken.
pub fn plan_for(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: &Options,
) -> Result<Plan, ImpError> {
    let plan = ioward_planner::advise(inventory, state, intent, options)
        .map_err(|(reasons, ways)| ImpError::Refused { reasons, ways })?;
    let problems = ioward_planner::validate(&plan, inventory, state);
    if problems.is_empty() { Ok(plan) } else { Err(ImpError::Unsound(problems.join("; "))) }
}

pub(crate) fn refused(reasons: Vec<Reason>) -> ImpError {
    ImpError::Refused { reasons, ways: Vec::new() }
}

/// What stands in the way of a partition, as the hypervisor says.
fn in_the_way(partition: &PartitionSpec, obstacle: Obstacle) -> Reason {
    let (rule, key) = match partition.kind {
        PartitionKind::Machine(_) => (Rule::BootFile, "boot"),
        PartitionKind::Domain(_) => (Rule::Domain, "libvirt"),
        PartitionKind::Namespace(_) => (Rule::Namespace, "netns"),
    };
    let Obstacle { required, found, remedy } = obstacle;
    Reason::new(rule, required, found).for_request(&partition.name).key(key).remedy(remedy)
}
