//! The lab tests. They run in level 1 (`cargo xtask test --only lab [FILTER]`), as root, in this order.

#![forbid(unsafe_code)]
// Tests say what must be so by panicking when it is not.
#![allow(clippy::expect_used, clippy::panic)]

mod channel;
mod choosing;
mod crashes;
mod drift;
mod hostile;
mod identify;
mod lab;
mod main_job;
mod on_linux;
mod package;
mod privileges;
mod refusals;
mod units;

use std::process::ExitCode;

use ioward_tests::{harness, tests};

fn main() -> ExitCode {
    let mut tests = tests![
        lab::three_adapters_can_give_7_7_and_4_vfs,
        lab::every_vf_appears_and_has_an_iommu_group_of_its_own,
        lab::a_guest_under_kvm_answers_on_its_console_and_obeys_the_power_button,
    ];
    tests.extend(on_linux::conformance());
    tests.extend(tests![
        identify::the_host_is_described_as_lspci_and_sysfs_describe_it,
        identify::a_recorded_host_is_shown_as_the_live_one_was,
        identify::a_copied_tree_is_identified_without_daemon_or_privilege,
        main_job::two_partitions_get_their_vfs_use_them_and_give_them_back,
        main_job::vfs_that_were_there_are_given_back_as_they_were_found,
        main_job::a_partition_keeps_its_vfs_while_it_is_stopped_and_while_its_guest_does_not_let_go,
        channel::the_channel_comes_with_the_first_vf_and_goes_with_the_last,
        channel::a_guest_sets_what_it_may_and_nothing_else,
        choosing::what_does_not_suit_is_told_with_the_rule_what_it_requires_and_what_was_found,
        choosing::what_suits_is_told_best_first_and_is_what_the_plan_takes,
        choosing::a_partition_on_a_numa_node_runs_there,
        choosing::a_plan_file_does_what_it_says_or_nothing,
        choosing::the_doctor_finds_the_lab_well,
        refusals::what_the_host_cannot_give_is_refused_with_reasons,
        refusals::a_pf_that_carries_the_hosts_address_is_left_alone_unless_allowed,
        refusals::growing_an_adapter_in_use_names_who_is_disturbed,
        refusals::without_an_iommu_no_vf_is_given_away,
        refusals::without_root_the_daemon_says_so,
        refusals::without_root_the_command_says_so,
        refusals::without_a_daemon_the_command_says_how_to_start_one,
        refusals::a_second_daemon_on_the_same_state_is_refused,
        refusals::qemu_missing_or_dying_at_once_leaves_the_host_as_it_was,
        refusals::without_kvm_a_partition_runs_in_emulation_and_is_said_to,
        refusals::a_step_that_the_kernel_refuses_has_the_others_undone,
        refusals::of_two_applies_at_once_one_is_told_to_wait,
        refusals::a_person_who_goes_away_has_the_apply_undone,
        hostile::garbage_half_frames_and_floods_harm_nobody,
        hostile::a_crashed_daemon_finds_its_machines_and_channels_again,
        drift::a_mac_changed_by_hand_is_repaired_and_told,
        drift::vfs_taken_from_under_a_guest_that_runs_are_told_with_what_it_lost,
        drift::vfs_that_nobody_lets_go_of_are_told_and_keep_only_their_adapter_waiting,
        drift::a_number_of_vfs_written_by_hand_is_told_with_what_it_broke,
        drift::a_machine_that_is_killed_is_told_and_its_partition_is_stopped,
        drift::an_orphan_is_listed_and_reaped_when_asked_for,
        drift::an_adapter_that_gets_other_bus_numbers_is_found_again,
        privileges::the_management_partition_may_do_next_to_nothing,
        privileges::neither_side_of_the_daemon_outlives_the_other,
        privileges::each_machine_is_a_user_of_its_own_with_its_own_device_nodes_only,
        privileges::a_management_partition_that_was_taken_over_gets_nothing_that_is_anothers,
        package::it_is_installed_upgraded_under_a_running_partition_and_removed,
        units::they_start_restart_and_stop_the_daemon_under_a_running_partition,
        crashes::fifty_kills_in_the_middle_of_changes_lose_nothing,
    ]);
    harness::main(&tests)
}
