//! CPU time: unlike the time on the wall, it hardly depends on who else uses the machine.

use std::{fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// CPU time in /proc is counted in hundredths of a second (proc_pid_stat(5), USER_HZ).
const TICK: Duration = Duration::from_millis(10);
/// utime and stime in /proc/PID/stat, counted from the field after its name.
const OF_ITSELF: usize = 11;
/// cutime and cstime: of children that have been waited for.
const OF_CHILDREN: usize = 13;

/// What this thread has used.
#[must_use]
pub fn of_thread() -> Duration {
    // The clock does not go back below 0.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// What a process has used, user and system time of all its threads, in hundredths of a second; `None` when there is none.
#[must_use]
pub fn of_process(process: u32) -> Option<Duration> {
    of(&format!("/proc/{process}/stat"), OF_ITSELF)
}

/// What the children of this process have used that have been waited for, and theirs, in hundredths of a second.
#[must_use]
pub fn of_children() -> Duration {
    of("/proc/self/stat", OF_CHILDREN).unwrap_or_default()
}

/// How long some work took of this thread's CPU time, in milliseconds, and what it gave.
pub fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = of_thread();
    let done = work();
    (milliseconds(of_thread().saturating_sub(begun)), done)
}

/// As rows have it.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn of(path: &str, field: usize) -> Option<Duration> {
    ticks(&fs::read_to_string(path).ok()?, field).map(|ticks| TICK * ticks)
}

/// The sum of two neighbouring fields of a process's stat.
fn ticks(stat: &str, field: usize) -> Option<u32> {
    // The name may have spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(field).map(|field| field.parse::<u32>().ok());
    Some(fields.next()?? + fields.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_whatever_the_name_is() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194304 500 600 0 0 1 2 30 40 20 0 1 0 100 0 0";
        assert_eq!((ticks(stat, OF_ITSELF), ticks(stat, OF_CHILDREN)), (Some(3), Some(70)));
        assert_eq!(ticks("17 (a) S 1 17", OF_ITSELF), None);
    }

    #[test]
    fn there_are_times_of_this_process() {
        assert!(of_process(std::process::id()).is_some());
        let (took, sum) = timed(|| (0..1_000_000_u64).map(std::hint::black_box).sum::<u64>());
        assert!(took > 0.0 && sum > 0);
    }
}
