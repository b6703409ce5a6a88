//! Parts of a benchmark that depends on others: programs that may be missing, a host that may hang. Whatever goes wrong is a row that
//! says so, and fails the benchmark.

use std::{
    env,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use crate::row::Row;

/// A part: rows that are measured together.
pub struct Part<W> {
    /// Its name, by which it can be asked for.
    pub name: &'static str,
    /// The programs that it holds ioward against, or measures with.
    pub needs: &'static [&'static str],
    /// What it does.
    pub work: W,
}

/// The first of some wanted names that is not among those that there are, as an error.
///
/// # Errors
/// Names it, and those that there are.
pub fn check_names(wanted: &[&str], names: &[&str]) -> Result<(), String> {
    match wanted.iter().find(|wanted| !names.contains(wanted)) {
        Some(unknown) => Err(format!("there is no row {unknown}; there are {}", names.join(", "))),
        None => Ok(()),
    }
}

/// Runs a part within a bound. Gives its rows, or one that says why there are none, and whether anything may come after it: not after one
/// that is not done, for nobody knows what state the host is in.
pub fn within<W>(bound: Duration, part: Part<W>) -> (Vec<Row>, bool)
where
    W: FnOnce() -> Result<Vec<Row>, String> + Send + 'static,
{
    let Part { name, needs, work } = part;
    let failed = |what, why| vec![Row::failed(name, what, why)];
    let missing: Vec<&str> = needs.iter().copied().filter(|program| !is_here(program)).collect();
    if !missing.is_empty() {
        return (failed("could not be run", format!("missing: {}", missing.join(", "))), true);
    }
    let (sender, done) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    match done.recv_timeout(bound) {
        Ok(Ok(rows)) => (rows, true),
        Ok(Err(why)) => (failed("could not be run", why), true),
        Err(RecvTimeoutError::Disconnected) => (failed("could not be run", "it panicked".into()), true),
        Err(RecvTimeoutError::Timeout) => {
            (failed("took too long", format!("not done after {} s", bound.as_secs())), false)
        }
    }
}

/// Whether a program is in a folder of PATH.
fn is_here(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Role;

    const LONG: Duration = Duration::from_secs(600);

    fn part<W>(needs: &'static [&'static str], work: W) -> Part<W> {
        Part { name: "bind", needs, work }
    }

    fn rows() -> Result<Vec<Row>, String> {
        Ok(vec![Row::new("bind", "bind VFs", "ms").with_samples(Role::Ours, "ioward", vec![1.0])])
    }

    /// The one row says what, fails the benchmark, and the next part is run or not.
    fn assert_fails(outcome: &(Vec<Row>, bool), says: &str, goes_on: bool) {
        let (rows, on) = outcome;
        assert_eq!((rows.len(), *on), (1, goes_on));
        assert!(!rows[0].is_whole());
        let told = crate::report::text(&rows[0], true);
        assert!(told.contains(says) && told.contains("FAILED"), "{told}");
    }

    #[test]
    fn an_unknown_row_is_refused_with_the_names_that_there_are() {
        let names = ["make", "bind"];
        assert_eq!(check_names(&["bind"], &names), Ok(()));
        assert_eq!(check_names(&[], &names), Ok(()));
        let why = check_names(&["bind", "blind"], &names).unwrap_err();
        assert_eq!(why, "there is no row blind; there are make, bind");
    }

    #[test]
    fn a_part_whose_peer_is_missing_is_not_begun_and_fails() {
        let begun = |_: ()| -> Result<Vec<Row>, String> { unreachable!("it lacks a peer") };
        let outcome = within(LONG, part(&["sh", "no-such-peer"], move || begun(())));
        assert_fails(&outcome, "missing: no-such-peer", true);
        let (rows, on) = within(LONG, part(&["sh"], rows));
        assert!(rows[0].is_whole() && on);
    }

    #[test]
    fn a_part_that_fails_or_panics_fails_and_the_next_is_run() {
        assert_fails(&within(LONG, part(&[], || Err("virsh: refused".into()))), "virsh: refused", true);
        let panics = || -> Result<Vec<Row>, String> { panic!("as it does in this test") };
        assert_fails(&within(LONG, part(&[], panics)), "it panicked", true);
    }

    /// Nobody knows what it is still doing to the host.
    #[test]
    fn a_part_that_takes_too_long_fails_and_is_the_last() {
        let (_keeps_it_waiting, waits) = mpsc::channel::<()>();
        let work = move || {
            let _ = waits.recv();
            rows()
        };
        assert_fails(&within(Duration::from_millis(1), part(&[], work)), "not done after 0 s", false);
    }
}
