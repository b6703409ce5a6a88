//! The lab tests. They run in level 1 (`cargo xtask test --only lab [FILTER]`), as root, in this order: whichever of two level 1s is
//! free takes the next. So those that take minutes come first, and the short ones last.

#![forbid(unsafe_code)]
// Tests fail by panicking.
#![allow(clippy::expect_used, clippy::panic)]

mod adapter_faults;
mod beside_virsh;
mod channel;
mod choosing;
mod consoles;
mod crashes;
mod devlink_health;
mod domain_crashes;
mod domains;
mod drift;
mod holders;
mod hostile;
mod identify;
mod lab;
mod libvirt;
mod libvirtd;
mod main_job;
mod moving;
mod namespaces;
mod on_linux;
mod package;
mod privileges;
mod refusals;
mod standby;
mod units;

use std::process::ExitCode;

use ioward_tests::{harness, tests};

fn main() -> ExitCode {
    let mut tests = tests![
        lab::three_adapters_can_give_7_7_and_4_vfs,
        lab::every_vf_appears_and_has_an_iommu_group_of_its_own,
        lab::a_guest_under_kvm_answers_on_its_console_and_obeys_the_power_button,
        // Two minutes and more.
        crashes::fifty_kills_during_changes_lose_nothing,
        hostile::garbage_half_frames_and_floods_harm_no_other_partition,
        domain_crashes::kills_of_the_daemon_and_of_libvirts_lose_nothing,
        main_job::two_partitions_get_use_and_return_their_vfs,
        main_job::a_partition_keeps_its_vfs_while_stopped_and_until_its_guest_releases_them,
        domains::a_spec_gives_vfs_to_a_domain_that_runs_and_virsh_goes_on_beside_it,
        drift::vfs_taken_from_a_running_guest_are_reported_with_its_loss,
        package::it_is_installed_upgraded_under_a_running_partition_and_removed,
        privileges::a_compromised_management_partition_reaches_nothing_of_others,
        beside_virsh::each_verb_of_virsh_goes_on_working_and_is_followed,
        // The others, by subject.
        identify::the_host_is_described_as_lspci_and_sysfs_describe_it,
        identify::a_recorded_host_is_shown_as_the_live_one_was,
        identify::a_copied_tree_is_identified_without_daemon_or_privilege,
        main_job::vfs_made_by_hand_are_restored_as_they_were,
        channel::the_channel_comes_with_the_first_vf_and_goes_with_the_last,
        channel::a_guest_sets_only_what_guest_may_allows,
        choosing::an_unsuitable_function_is_shown_with_rule_requirement_and_finding,
        choosing::suitable_functions_are_shown_best_first_as_the_plan_takes_them,
        choosing::a_partition_on_a_numa_node_runs_there,
        choosing::a_plan_file_is_carried_out_as_reviewed_or_refused,
        choosing::the_doctor_finds_no_fault_in_the_lab,
        refusals::an_impossible_spec_is_refused_with_reasons,
        refusals::a_pf_that_carries_the_hosts_address_is_left_alone_unless_allowed,
        refusals::growing_an_adapter_in_use_names_the_disturbed_partitions,
        refusals::without_an_iommu_no_vf_is_assigned,
        refusals::without_root_the_daemon_says_so,
        refusals::without_root_the_command_says_so,
        refusals::without_a_daemon_the_command_says_how_to_start_one,
        refusals::a_second_daemon_on_the_same_state_is_refused,
        refusals::a_qemu_that_is_missing_or_dies_at_once_leaves_the_host_unchanged,
        refusals::without_kvm_a_partition_runs_in_emulation_and_says_so,
        refusals::a_step_refused_by_the_kernel_rolls_back_the_plan,
        refusals::of_two_concurrent_applies_one_has_to_wait,
        refusals::an_apply_is_rolled_back_when_its_user_disconnects,
        hostile::a_crashed_daemon_finds_its_machines_and_channels_again,
        adapter_faults::a_guest_that_an_error_has_halted_is_reset_and_answers_again,
        adapter_faults::a_vf_that_reports_errors_again_and_again_is_locked_out_and_halts_nobody_any_more,
        adapter_faults::an_adapter_that_reports_an_error_is_frozen_and_is_as_noted_afterwards,
        adapter_faults::a_pf_that_has_its_nvme_controller_reset_is_frozen_and_is_as_noted_afterwards,
        devlink_health::a_health_reporter_is_read_fails_and_is_recovered_as_devlink_says,
        drift::a_mac_changed_by_hand_is_repaired_and_reported,
        drift::vfs_that_a_guest_never_releases_block_only_their_adapter,
        drift::a_vf_count_written_by_hand_is_reported_with_the_broken_vfs,
        drift::a_killed_machine_is_reported_and_its_partition_is_stopped,
        drift::an_orphan_is_listed_and_reaped_on_request,
        drift::an_adapter_that_gets_other_bus_numbers_is_found_again,
        holders::a_machine_that_is_not_iowards_is_named_and_keeps_its_vf,
        holders::a_vf_whose_interface_is_in_a_network_namespace_is_told_and_stays_there,
        namespaces::a_namespace_gets_its_vf_configures_it_and_loses_it_with_its_end_only,
        namespaces::a_container_known_by_a_pid_file_is_served_and_keeps_no_vf_that_it_hides,
        privileges::the_management_partition_has_almost_no_permissions,
        privileges::neither_side_of_the_daemon_outlives_the_other,
        privileges::each_machine_is_a_user_of_its_own_with_its_own_device_nodes_only,
        standby::a_guest_goes_on_through_its_standby_while_its_vf_is_away,
        standby::a_vf_that_is_hidden_from_its_guest_is_taken_back_at_once,
        moving::a_guest_moves_to_another_machine_and_vf_while_it_is_pinged,
        consoles::a_console_is_watched_and_typed_on_through_the_daemon,
        libvirt::a_domain_is_read_changed_and_followed_and_the_daemon_may_be_killed,
        domains::a_domain_that_runs_gets_a_vf_and_a_channel_and_gives_them_back_without_a_trace,
        domains::a_domain_that_has_a_vf_is_taken_over_as_it_is_and_released_as_it_was,
        domains::a_domain_started_by_hand_has_its_vfs_or_says_why_it_does_not_start,
        units::they_start_restart_and_stop_the_daemon_under_a_running_partition,
    ];
    tests.extend(on_linux::conformance());
    harness::main(&tests)
}
