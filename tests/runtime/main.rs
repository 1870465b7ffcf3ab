//! The engine seen from above: duroxide's own Runtime and Client run on it, and every promise is checked
//! by what a user of duroxide can see. One file a promise; its restarts are in the same file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[macro_use]
#[path = "../support/mod.rs"]
mod support;

mod a_cap_on_sessions_stalls_nobody;
mod a_lease_outlives_its_worker;
mod cancellation_reaches_all_work;
mod children_answer_their_parent;
mod continue_as_new_keeps_each_execution;
mod custom_status_is_seen_by_clients;
mod deletion_takes_the_whole_tree;
mod events_match_their_waits;
mod failures_keep_their_kind;
mod fan_out_gathers_every_branch;
mod key_values_outlive_executions;
mod management_sees_every_instance;
mod many_at_once_all_finish;
mod messages_for_nobody_hold_nobody_up;
mod old_runtimes_leave_new_executions_alone;
mod payloads_come_back_unchanged;
mod poison_ends_in_failure;
mod pruning_spares_the_current_execution;
mod queued_events_wait_to_be_taken;
mod races_have_one_winner;
mod recorded_values_replay_unchanged;
mod retries_back_off_and_count;
mod sessions_stay_with_one_owner;
mod tags_route_to_their_workers;
mod timers_fire_when_due;
mod versions_stay_pinned;
mod what_is_too_large_fails_once;
