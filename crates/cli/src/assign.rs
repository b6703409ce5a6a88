//! `ioward assign`: more VFs for a partition that is there, all in one plan.

use std::collections::BTreeSet;

use ioward_model::{Intent, Name, NameError, Spec, VfRequest};

use crate::{
    change::{self, Asks},
    change_args::AssignArgs,
    client::Client,
    error::CliError,
    pf_ref,
};

/// Names the VFs, then shows the plan, asks, and carries it out.
///
/// # Errors
/// When the options make no sense together, the daemon does not answer or refuses, the person does not want the plan, or
/// a step fails.
pub async fn assign(client: &Client, args: AssignArgs) -> Result<(), CliError> {
    let AssignArgs { name: partition, count, prefix, what, allow, how } = args;
    let prefix = prefix.map_or_else(|| what.class.vf_prefix().to_owned(), |prefix| prefix.to_string());
    // Each gets its name once it is known which are free.
    let first = name(format!("{prefix}0"))?;
    let pf = pf_ref::address(client, what.pf.as_ref()).await?;
    let what = what.into_request(first, pf).map_err(|error| CliError::Usage(error.to_string()))?;
    for (option, given) in [("--mac", what.mac.is_some()), ("--index", what.index.is_some())] {
        if given && count > 1 {
            return Err(CliError::Usage(format!(
                "{option} is of one VF only; leave it out with --count {count}, or assign them one by one"
            )));
        }
    }
    // A partition that is not there has no VFs; that it is not there is for the planner to say.
    let spec: Spec = client.get("/v1/spec").await?;
    let present = spec.partitions.iter().find(|present| present.name == partition);
    let taken = present.into_iter().flat_map(|present| &present.vfs).map(|vf| vf.name.as_str()).collect();
    let names = free_names(&prefix, usize::from(count), &taken);
    let named = |free| Ok(VfRequest { name: name(free)?, ..what.clone() });
    let vfs = names.into_iter().map(named).collect::<Result<_, CliError>>()?;
    change::change(client, Intent::Attach { partition, vfs }, allow.options(false), Asks::Always, how).await
}

fn name(text: String) -> Result<Name, CliError> {
    text.parse().map_err(|error: NameError| CliError::Usage(error.to_string()))
}

/// The first names of this prefix and a number that nobody has.
pub fn free_names(prefix: &str, count: usize, taken: &BTreeSet<&str>) -> Vec<String> {
    let names = (0_usize..).map(|number| format!("{prefix}{number}"));
    names.filter(|name| !taken.contains(name.as_str())).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fill_the_gaps_first() {
        let taken = BTreeSet::from(["net0", "net2", "disk1", "net03"]);
        assert_eq!(free_names("net", 3, &taken), ["net1", "net3", "net4"]);
        assert_eq!(free_names("disk", 2, &taken), ["disk0", "disk2"]);
    }
}
