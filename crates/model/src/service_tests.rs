//! What becomes of an adapter that is watched.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{HealthReporter, HealthState};

/// As a look finds it: so many fatal errors so far, or no answer.
fn pf(fatal: u64, answers: bool) -> PhysicalFunction {
    serde_json::from_value(json!({
        "address": "0000:01:00.0", "vendor_id": "8086", "device_id": "10c9", "name": "a NIC", "class": "network",
        "driver": "igb", "in_use_by_host": [], "vfs_assigned": 0, "vfs_available": 7, "virtual_functions": [],
        "conditions": {"no_answer": !answers},
        "errors": {"correctable": 9, "nonfatal": 0, "fatal": fatal},
    }))
    .unwrap()
}

fn state(watched: &Watched) -> String {
    watched.service().to_string()
}

#[test]
fn an_error_freezes_an_adapter_until_it_was_quiet_and_is_made_as_it_is_noted() {
    let mut watched = Watched::default();
    assert!(!watched.see(&pf(7, true), 0), "what was before the first look is no fault");
    assert!(watched.see(&pf(8, true), 1_000));
    assert_eq!(state(&watched), "frozen: 1 fatal error (AER)");
    assert!(!watched.see(&pf(8, true), 2_999), "not yet quiet for long enough");
    assert!(watched.see(&pf(8, true), 3_000));
    assert_eq!(state(&watched), "recovering: 1 fatal error (AER)");
    assert!(watched.repaired(true, 3_100));
    assert!(watched.service().is_serving());
    assert_eq!(watched.attempt(100_000), None, "nothing was to be attempted");
}

#[test]
fn a_burst_of_errors_is_one_fault_and_a_count_that_begins_anew_is_none() {
    let mut watched = Watched::default();
    watched.see(&pf(3, true), 0);
    watched.see(&pf(1_003, true), 10);
    assert_eq!(state(&watched), "frozen: 1000 fatal errors (AER)");
    let mut watched = Watched::default();
    watched.see(&pf(3, true), 0);
    // The kernel has found the adapter anew.
    assert!(!watched.see(&pf(0, true), 10));
}

#[test]
fn an_adapter_that_falls_silent_is_reset_then_bound_anew_and_fails_when_nothing_helps() {
    let mut watched = Watched::default();
    watched.see(&pf(0, true), 0);
    watched.see(&pf(0, false), 1_000);
    assert_eq!(state(&watched), "frozen: it does not answer any more");
    let mut made = Vec::new();
    for second in 1..=200 {
        watched.see(&pf(0, false), second * 1_000);
        made.extend(watched.attempt(second * 1_000).map(|attempt| (second, attempt)));
    }
    let (reset, rebind) = (Recovery::Reset, Recovery::Rebind);
    assert_eq!(made, [(5, reset), (13, rebind), (29, reset), (61, rebind)]);
    assert_eq!(state(&watched), "failed: it does not answer any more; 4 attempts did not help");
    assert!(!watched.see(&pf(0, true), 900_000), "it stays out, though it answers again");
}

/// As a look finds one whose NVMe controller is in this state; `None`: no driver has it.
fn nvme(state: Option<&str>) -> PhysicalFunction {
    let state = state.map(|word| NvmeState::of_word(word).unwrap());
    let controller = state.map(|state| json!({"name": "nvme0", "resources": null, "state": state}));
    let mut pf = pf(0, true);
    pf.driver = controller.is_some().then(|| "nvme".to_owned());
    pf.nvme = controller.map(|controller| serde_json::from_value(controller).unwrap());
    pf
}

#[test]
fn an_nvme_controller_that_its_driver_resets_is_left_to_it_and_then_made_as_it_is_noted() {
    let mut watched = Watched::default();
    for (second, state) in [(0, "new"), (1, "connecting"), (2, "live")] {
        assert!(!watched.see(&nvme(Some(state)), second * 1_000), "it is just being found: {state}");
    }
    watched.see(&nvme(Some("resetting")), 3_000);
    assert_eq!(state(&watched), "frozen: its NVMe controller is resetting");
    for second in 4..60 {
        watched.see(&nvme(Some("connecting")), second * 1_000);
        assert_eq!(watched.attempt(second * 1_000), None, "its driver has it in hand");
    }
    watched.see(&nvme(Some("live")), 60_000);
    watched.see(&nvme(Some("live")), 62_000);
    assert_eq!(state(&watched), "recovering: its NVMe controller is resetting");
    assert!(watched.repaired(true, 62_000) && watched.service().is_serving());
}

#[test]
fn an_nvme_controller_whose_driver_does_not_come_to_an_end_or_gives_it_up_is_recovered_and_fails() {
    for (word, first) in [("resetting", 131), ("dead", 5)] {
        let mut watched = Watched::default();
        watched.see(&nvme(Some("live")), 0);
        let mut made = Vec::new();
        for second in 1..=400 {
            watched.see(&nvme(Some(word)), second * 1_000);
            made.extend(watched.attempt(second * 1_000).map(|_| second));
        }
        assert_eq!((made.len(), made[0]), (4, first), "{word}");
        assert_eq!(
            state(&watched),
            format!("failed: its NVMe controller is {word}; 4 attempts did not help")
        );
    }
}

/// Somebody has bound the VF's PF anew, or taken its driver: nobody resets it.
#[test]
fn an_nvme_controller_that_its_driver_lets_go_of_is_no_fault() {
    let mut watched = Watched::default();
    for (second, state) in (0..).zip([Some("live"), Some("deleting"), None, Some("new"), Some("connecting")])
    {
        assert!(!watched.see(&nvme(state), second * 1_000), "{state:?}");
    }
}

/// As a look finds one with health reporters: name, errors, whether the latest is still there, whether the driver can recover.
fn reporting(reporters: &[(&str, u64, bool, Option<bool>)]) -> PhysicalFunction {
    let reporters = reporters.iter().map(|(name, errors, is_in_error, auto_recover)| HealthReporter {
        name: (*name).to_owned(),
        port: None,
        state: if *is_in_error { HealthState::Error } else { HealthState::Healthy },
        errors: *errors,
        recoveries: 0,
        auto_recover: *auto_recover,
    });
    PhysicalFunction { health: Some(reporters.collect()), ..pf(0, true) }
}

#[test]
fn a_health_reporter_that_stays_in_error_freezes_its_adapter_and_its_driver_is_asked_before_it_is_reset() {
    let mut watched = Watched::default();
    watched.see(&reporting(&[("fw", 0, false, Some(true)), ("tx", 0, false, Some(false))]), 0);
    let broken = reporting(&[("fw", 0, false, Some(true)), ("tx", 1, true, Some(false))]);
    assert!(!watched.see(&broken, 1_000) && watched.is_in_doubt(), "its driver may be recovering");
    assert!(watched.see(&broken, 2_000) && !watched.is_in_doubt());
    assert_eq!(state(&watched), "frozen: its health reporter tx is in error");
    let mut made = Vec::new();
    for second in 3..=200 {
        watched.see(&broken, second * 1_000);
        made.extend(watched.attempt(second * 1_000).map(|attempt| (second, attempt)));
    }
    let (health, reset, rebind) = (Recovery::Health, Recovery::Reset, Recovery::Rebind);
    assert_eq!(made, [(6, health), (14, reset), (30, rebind), (62, reset)]);
    assert_eq!(state(&watched), "failed: its health reporter tx is in error; 4 attempts did not help");
}

#[test]
fn a_health_reporter_that_is_recovered_lets_its_adapter_serve_again() {
    let mut watched = Watched::default();
    watched.see(&reporting(&[("tx", 7, false, Some(false))]), 0);
    for second in 1..=2 {
        watched.see(&reporting(&[("tx", 8, true, Some(false))]), second * 1_000);
    }
    assert!(watched.service().is_frozen());
    watched.see(&reporting(&[("tx", 8, false, Some(false))]), 3_000);
    watched.see(&reporting(&[("tx", 8, false, Some(false))]), 5_000);
    assert_eq!(state(&watched), "recovering: its health reporter tx is in error");
    assert!(watched.repaired(true, 5_000) && watched.service().is_serving());
}

/// The kernel does not tell of it while its driver is busy, which may be with just that.
#[test]
fn a_health_reporter_that_nobody_tells_of_for_a_while_is_as_it_was() {
    let mut watched = Watched::default();
    watched.see(&reporting(&[("tx", 7, false, Some(true))]), 0);
    watched.see(&reporting(&[("tx", 8, true, Some(true))]), 1_000);
    assert!(watched.see(&pf(0, true), 2_000) && watched.service().is_frozen());
    assert!(!watched.see(&pf(0, true), 60_000));
    // Its driver was bound anew, and has none.
    assert!(!watched.see(&reporting(&[]), 61_000) && watched.see(&reporting(&[]), 63_000));
    assert!(matches!(watched.service(), Service::Recovering { .. }));
}

/// A queue that hangs and is set up anew is every day's business of some drivers.
#[test]
fn what_a_driver_recovers_from_by_itself_is_no_fault_however_often() {
    let mut watched = Watched::default();
    for n in 0..100 {
        assert!(!watched.see(&reporting(&[("tx", n, false, Some(true))]), n * 10_000));
        assert!(!watched.see(&reporting(&[("tx", n + 1, true, Some(true))]), n * 10_000 + 5_000));
        assert!(!watched.see(&reporting(&[("tx", n + 1, false, Some(true))]), n * 10_000 + 5_999));
        assert!(!watched.is_in_doubt());
    }
}

/// It stays in error for as long as the driver has the adapter, since nothing can recover it. A guest that misbehaves suffices for
/// such a report (ice has one for malicious VFs), and its neighbours would lose their adapter.
#[test]
fn a_health_reporter_without_a_way_to_recover_is_no_fault() {
    let mut watched = Watched::default();
    for second in 0..100 {
        let is_in_error = second > 3;
        let mdd = reporting(&[("mdd", second, is_in_error, None)]);
        assert!(!watched.see(&mdd, second * 1_000) && !watched.is_in_doubt());
    }
}

#[test]
fn a_health_reporter_that_was_in_error_before_anybody_looked_is_none_until_it_has_another() {
    let mut watched = Watched::default();
    for second in 0..100 {
        assert!(!watched.see(&reporting(&[("tx", 3, true, Some(false))]), second * 1_000));
    }
    // The kernel does not tell for a while, or its driver is bound anew.
    assert!(!watched.see(&reporting(&[]), 100_000));
    assert!(!watched.see(&reporting(&[("tx", 3, true, Some(false))]), 101_000));
    watched.see(&reporting(&[("tx", 4, true, Some(false))]), 102_000);
    watched.see(&reporting(&[("tx", 4, true, Some(false))]), 103_000);
    assert_eq!(state(&watched), "frozen: its health reporter tx is in error");
}

#[test]
fn one_that_never_answered_is_no_fault() {
    let mut watched = Watched::default();
    for second in 0..100 {
        assert!(!watched.see(&pf(0, false), second * 1_000));
    }
}

#[test]
fn too_many_faults_lock_an_adapter_out() {
    let mut watched = Watched::default();
    watched.see(&pf(0, true), 0);
    for fault in 1..=5_u64 {
        let at = fault * 60_000;
        watched.see(&pf(fault, true), at);
        watched.see(&pf(fault, true), at + QUIET_MS);
        watched.repaired(true, at + QUIET_MS);
    }
    assert_eq!(state(&watched), "failed: 5 faults within 10 minutes, the last one: 1 fatal error (AER)");
    let mut rare = Watched::default();
    rare.see(&pf(0, true), 0);
    for fault in 1..=50_u64 {
        let at = fault * WINDOW_MS / 4;
        rare.see(&pf(fault, true), at);
        rare.see(&pf(fault, true), at + QUIET_MS);
        assert!(rare.repaired(true, at + QUIET_MS), "fault {fault}");
    }
}

#[test]
fn a_vf_that_reports_errors_again_and_again_is_locked_out() {
    let errors = |nonfatal| Some(ErrorCounts { correctable: 9, nonfatal, fatal: 0 });
    let mut watched = WatchedVf::default();
    assert_eq!(watched.see(errors(70), 0), None, "what was before the first look is no fault");
    assert_eq!(watched.see(errors(1_070), 1_000), None, "a burst is one");
    assert_eq!(watched.see(None, 2_000), None, "nor is it one that it can't be read for a while");
    assert_eq!(watched.see(errors(1_071), 3_000), None);
    assert_eq!(watched.see(errors(1_071), 4_000), None);
    let why = watched.see(errors(1_072), 5_000).unwrap();
    assert_eq!(why, "3 faults within 10 minutes, the last one: 1 non-fatal error (AER)");
    let mut rare = WatchedVf::default();
    assert!((0..50).all(|n| rare.see(errors(n), n * WINDOW_MS / 2).is_none()));
}

proptest! {
    /// Whatever an adapter does, it serves or has failed within a bound after it has done the last thing.
    #[test]
    fn nothing_is_recovered_for_ever(
        looks in proptest::collection::vec((0..3_u64, any::<bool>(), 1..9_000_u64, 0..5_usize, any::<bool>()), 0..80),
        ends_well in any::<bool>(),
        last in 0..5_usize,
        ends_in_error in any::<bool>(),
        is_repaired in any::<bool>(),
    ) {
        let with = |fatal, answers, state: usize, is_in_error| {
            let word = ["live", "resetting", "connecting", "dead"].get(state).copied();
            let health = reporting(&[("tx", fatal, is_in_error, Some(true))]).health;
            PhysicalFunction { nvme: nvme(word).nvme, health, ..pf(fatal, answers) }
        };
        let (mut watched, mut now, mut fatal) = (Watched::default(), 0, 0);
        for (more, answers, takes, state, is_in_error) in looks {
            fatal += more;
            now += takes;
            watched.see(&with(fatal, answers, state, is_in_error), now);
            watched.attempt(now);
            watched.repaired(answers, now);
        }
        for _ in 0..400 {
            now += 1_000;
            watched.see(&with(fatal, ends_well, last, ends_in_error), now);
            watched.attempt(now);
            watched.repaired(is_repaired, now);
        }
        let is_at_rest = matches!(watched.service(), Service::Serving | Service::Failed { .. });
        prop_assert!(is_at_rest, "{}", watched.service());
    }
}
