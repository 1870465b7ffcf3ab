//! Every provider validation that duroxide exports, on a file at `Full`, on a file at `Normal`, in memory, and over maps.
//!
//! The list is written out, one test each, so that a failure has a name. `nothing_is_left_out` reads the list
//! of the installed package and fails if a function is missing here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use duroxide::provider_validations::{self as validations, ProviderFactory, race_replay};
use duroxide::providers::Provider;
use forebay::hooks::Maps;
use forebay::{Durability, Forebay, Options};
use tempfile::TempDir;

/// Makes providers that are all alike, and remembers the last one: the validations that corrupt a history
/// mean that one.
struct Factory {
    kind: Kind,
    folder: TempDir,
    made: Mutex<Vec<Forebay>>,
}

/// Where the rows are.
enum Kind {
    File(Durability),
    Memory,
    /// Without SQLite.
    Maps,
}

impl Factory {
    fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the databases");
        Self { kind, folder, made: Mutex::default() }
    }

    fn full() -> Self {
        Self::new(Kind::File(Durability::Full))
    }

    fn normal() -> Self {
        Self::new(Kind::File(Durability::Normal))
    }

    fn memory() -> Self {
        Self::new(Kind::Memory)
    }

    fn maps() -> Self {
        Self::new(Kind::Maps)
    }

    fn make(&self) -> Forebay {
        let mut made = self.made.lock().expect("not poisoned");
        let opened = match self.kind {
            Kind::File(durability) => {
                let path = self.folder.path().join(format!("{}.db", made.len()));
                Options::default().durability(durability).open(path)
            }
            Kind::Memory => Forebay::in_memory(),
            Kind::Maps => Maps::default().open(Options::default()),
        };
        made.push(opened.expect("a new database opens"));
        made[made.len() - 1].clone()
    }

    fn last(&self) -> Forebay {
        self.made.lock().expect("not poisoned").last().expect("one was made").clone()
    }
}

#[async_trait::async_trait]
impl ProviderFactory for Factory {
    async fn create_provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.make())
    }

    fn lock_timeout(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn corrupt_instance_history(&self, instance: &str) {
        if let Kind::Maps = self.kind {
            let corrupted = Maps::corrupt_history(&self.last(), instance).expect("the engine runs");
            return assert!(corrupted > 0, "there was a history to corrupt");
        }
        let sql = "UPDATE history SET record = x'01deadbeef00'
                   WHERE instance = (SELECT key FROM instances WHERE id = ?1)";
        let instance = instance.to_owned();
        let corrupt = move |connection: &rusqlite::Connection| connection.execute(sql, [instance]);
        let corrupted = self.last().on_writer_connection(corrupt).expect("the engine runs");
        assert!(corrupted.expect("the update works") > 0, "there was a history to corrupt");
    }

    async fn get_max_attempt_count(&self, instance: &str) -> u32 {
        if let Kind::Maps = self.kind {
            return Maps::attempts(&self.last(), instance).expect("the engine runs");
        }
        let sql = "SELECT max(attempt) FROM messages WHERE instance = ?1";
        let instance = instance.to_owned();
        let read =
            move |connection: &rusqlite::Connection| connection.query_row(sql, [instance], |r| r.get(0));
        self.last().on_writer_connection(read).expect("the engine runs").expect("there are messages")
    }
}

/// Runs in one of the four places; a test binary is a `mod` of this list for each of them.
macro_rules! in_every_place {
    ($($name:ident($factory:ident) $call:expr;)*) => {
        in_every_place!(@place full, $($name($factory) $call;)*);
        in_every_place!(@place normal, $($name($factory) $call;)*);
        in_every_place!(@place memory, $($name($factory) $call;)*);
        in_every_place!(@place maps, $($name($factory) $call;)*);

        /// The names of the tests, each of them named after the validation it calls.
        const CALLED: &[&str] = &[$(stringify!($name)),*];
    };
    (@place $place:ident, $($name:ident($factory:ident) $call:expr;)*) => {
        mod $place {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let $factory = &Factory::$place();
                    $call.await;
                }
            )*
        }
    };
}

/// For providers that answer a fetch at once when there is nothing; forebay waits as long as it was asked to.
const FOR_SHORT_POLLING: &[&str] =
    &["test_short_poll_returns_immediately", "test_short_poll_work_item_returns_immediately"];

in_every_place! {
    test_instance_creation_via_metadata(factory) validations::test_instance_creation_via_metadata(factory);
    test_no_instance_creation_on_enqueue(factory) validations::test_no_instance_creation_on_enqueue(factory);
    test_null_version_handling(factory) validations::test_null_version_handling(factory);
    test_sub_orchestration_instance_creation(factory) validations::test_sub_orchestration_instance_creation(factory);
    test_atomicity_failure_rollback(factory) validations::test_atomicity_failure_rollback(factory);
    test_concurrent_ack_prevention(factory) validations::test_concurrent_ack_prevention(factory);
    test_lock_released_only_on_successful_ack(factory) validations::test_lock_released_only_on_successful_ack(factory);
    test_multi_operation_atomic_ack(factory) validations::test_multi_operation_atomic_ack(factory);
    test_corrupted_serialization_data(factory) validations::test_corrupted_serialization_data(factory);
    test_duplicate_event_id_rejection(factory) validations::test_duplicate_event_id_rejection(factory);
    test_invalid_lock_token_on_ack(factory) validations::test_invalid_lock_token_on_ack(factory);
    test_lock_expiration_during_ack(factory) validations::test_lock_expiration_during_ack(factory);
    test_missing_instance_metadata(factory) validations::test_missing_instance_metadata(factory);
    test_read_corrupted_history_returns_error(factory) validations::test_read_corrupted_history_returns_error(factory);
    test_read_with_execution_corrupted_history_returns_error(factory) validations::test_read_with_execution_corrupted_history_returns_error(factory);
    test_ack_only_affects_locked_messages(factory) validations::test_ack_only_affects_locked_messages(factory);
    test_completions_arriving_during_lock_blocked(factory) validations::test_completions_arriving_during_lock_blocked(factory);
    test_concurrent_instance_fetching(factory) validations::test_concurrent_instance_fetching(factory);
    test_cross_instance_lock_isolation(factory) validations::test_cross_instance_lock_isolation(factory);
    test_exclusive_instance_lock(factory) validations::test_exclusive_instance_lock(factory);
    test_invalid_lock_token_rejection(factory) validations::test_invalid_lock_token_rejection(factory);
    test_lock_token_uniqueness(factory) validations::test_lock_token_uniqueness(factory);
    test_message_tagging_during_lock(factory) validations::test_message_tagging_during_lock(factory);
    test_multi_threaded_lock_contention(factory) validations::test_multi_threaded_lock_contention(factory);
    test_multi_threaded_lock_expiration_recovery(factory) validations::test_multi_threaded_lock_expiration_recovery(factory);
    test_multi_threaded_no_duplicate_processing(factory) validations::test_multi_threaded_no_duplicate_processing(factory);
    test_abandon_releases_lock_immediately(factory) validations::test_abandon_releases_lock_immediately(factory);
    test_abandon_work_item_releases_lock(factory) validations::test_abandon_work_item_releases_lock(factory);
    test_abandon_work_item_with_delay(factory) validations::test_abandon_work_item_with_delay(factory);
    test_concurrent_lock_attempts_respect_expiration(factory) validations::test_concurrent_lock_attempts_respect_expiration(factory);
    test_lock_expires_after_timeout(factory) validations::test_lock_expires_after_timeout(factory);
    test_lock_renewal_on_ack(factory) validations::test_lock_renewal_on_ack(factory);
    test_orchestration_lock_renewal_after_expiration(factory) validations::test_orchestration_lock_renewal_after_expiration(factory);
    test_worker_ack_fails_after_lock_expiry(factory) validations::test_worker_ack_fails_after_lock_expiry(factory);
    test_worker_lock_renewal_after_ack(factory) validations::test_worker_lock_renewal_after_ack(factory);
    test_worker_lock_renewal_after_expiration(factory) validations::test_worker_lock_renewal_after_expiration(factory);
    test_worker_lock_renewal_extends_timeout(factory) validations::test_worker_lock_renewal_extends_timeout(factory);
    test_worker_lock_renewal_invalid_token(factory) validations::test_worker_lock_renewal_invalid_token(factory);
    test_worker_lock_renewal_success(factory) validations::test_worker_lock_renewal_success(factory);
    test_continue_as_new_creates_new_execution(factory) validations::test_continue_as_new_creates_new_execution(factory);
    test_execution_history_persistence(factory) validations::test_execution_history_persistence(factory);
    test_execution_id_sequencing(factory) validations::test_execution_id_sequencing(factory);
    test_execution_isolation(factory) validations::test_execution_isolation(factory);
    test_latest_execution_detection(factory) validations::test_latest_execution_detection(factory);
    test_lost_lock_token_handling(factory) validations::test_lost_lock_token_handling(factory);
    test_orphan_queue_messages_dropped(factory) validations::test_orphan_queue_messages_dropped(factory);
    test_timer_delayed_visibility(factory) validations::test_timer_delayed_visibility(factory);
    test_worker_ack_atomicity(factory) validations::test_worker_ack_atomicity(factory);
    test_worker_delayed_visibility_skips_future_items(factory) validations::test_worker_delayed_visibility_skips_future_items(factory);
    test_worker_item_immediate_visibility(factory) validations::test_worker_item_immediate_visibility(factory);
    test_worker_peek_lock_semantics(factory) validations::test_worker_peek_lock_semantics(factory);
    test_worker_queue_fifo_ordering(factory) validations::test_worker_queue_fifo_ordering(factory);
    test_get_execution_info(factory) validations::test_get_execution_info(factory);
    test_get_instance_info(factory) validations::test_get_instance_info(factory);
    test_get_instance_stats_carry_forward(factory) validations::test_get_instance_stats_carry_forward(factory);
    test_get_instance_stats_history(factory) validations::test_get_instance_stats_history(factory);
    test_get_instance_stats_kv(factory) validations::test_get_instance_stats_kv(factory);
    test_get_instance_stats_kv_delta_only(factory) validations::test_get_instance_stats_kv_delta_only(factory);
    test_get_instance_stats_kv_merged(factory) validations::test_get_instance_stats_kv_merged(factory);
    test_get_instance_stats_nonexistent(factory) validations::test_get_instance_stats_nonexistent(factory);
    test_get_queue_depths(factory) validations::test_get_queue_depths(factory);
    test_get_system_metrics(factory) validations::test_get_system_metrics(factory);
    test_list_executions(factory) validations::test_list_executions(factory);
    test_list_instances(factory) validations::test_list_instances(factory);
    test_list_instances_by_status(factory) validations::test_list_instances_by_status(factory);
    test_fetch_respects_timeout_upper_bound(factory) validations::long_polling::test_fetch_respects_timeout_upper_bound(&factory.make());
    test_long_poll_waits_for_timeout(factory) validations::long_polling::test_long_poll_waits_for_timeout(&factory.make());
    test_long_poll_work_item_waits_for_timeout(factory) validations::long_polling::test_long_poll_work_item_waits_for_timeout(&factory.make());
    abandon_orchestration_item_ignore_attempt_decrements(factory) validations::poison_message::abandon_orchestration_item_ignore_attempt_decrements(factory);
    abandon_work_item_ignore_attempt_decrements(factory) validations::poison_message::abandon_work_item_ignore_attempt_decrements(factory);
    attempt_count_is_per_message(factory) validations::poison_message::attempt_count_is_per_message(factory);
    ignore_attempt_never_goes_negative(factory) validations::poison_message::ignore_attempt_never_goes_negative(factory);
    max_attempt_count_across_message_batch(factory) validations::poison_message::max_attempt_count_across_message_batch(factory);
    orchestration_attempt_count_increments_on_refetch(factory) validations::poison_message::orchestration_attempt_count_increments_on_refetch(factory);
    orchestration_attempt_count_starts_at_one(factory) validations::poison_message::orchestration_attempt_count_starts_at_one(factory);
    orchestration_delayed_abandon_preserves_unlocked_rows(factory) validations::poison_message::orchestration_delayed_abandon_preserves_unlocked_rows(factory);
    orchestration_ignore_attempt_preserves_hidden_start(factory) validations::poison_message::orchestration_ignore_attempt_preserves_hidden_start(factory);
    worker_attempt_count_increments_on_lock_expiry(factory) validations::poison_message::worker_attempt_count_increments_on_lock_expiry(factory);
    worker_attempt_count_starts_at_one(factory) validations::poison_message::worker_attempt_count_starts_at_one(factory);
    test_ack_work_item_fails_when_entry_deleted(factory) validations::test_ack_work_item_fails_when_entry_deleted(factory);
    test_ack_work_item_none_deletes_without_enqueue(factory) validations::test_ack_work_item_none_deletes_without_enqueue(factory);
    test_batch_cancellation_deletes_multiple_activities(factory) validations::test_batch_cancellation_deletes_multiple_activities(factory);
    test_cancelled_activities_deleted_from_worker_queue(factory) validations::test_cancelled_activities_deleted_from_worker_queue(factory);
    test_cancelling_nonexistent_activities_is_idempotent(factory) validations::test_cancelling_nonexistent_activities_is_idempotent(factory);
    test_fetch_returns_missing_state_when_instance_deleted(factory) validations::test_fetch_returns_missing_state_when_instance_deleted(factory);
    test_fetch_returns_running_state_for_active_orchestration(factory) validations::test_fetch_returns_running_state_for_active_orchestration(factory);
    test_fetch_returns_terminal_state_when_orchestration_completed(factory) validations::test_fetch_returns_terminal_state_when_orchestration_completed(factory);
    test_fetch_returns_terminal_state_when_orchestration_continued_as_new(factory) validations::test_fetch_returns_terminal_state_when_orchestration_continued_as_new(factory);
    test_fetch_returns_terminal_state_when_orchestration_failed(factory) validations::test_fetch_returns_terminal_state_when_orchestration_failed(factory);
    test_orphan_activity_after_instance_force_deletion(factory) validations::test_orphan_activity_after_instance_force_deletion(factory);
    test_renew_fails_when_entry_deleted(factory) validations::test_renew_fails_when_entry_deleted(factory);
    test_renew_returns_missing_when_instance_deleted(factory) validations::test_renew_returns_missing_when_instance_deleted(factory);
    test_renew_returns_running_when_orchestration_active(factory) validations::test_renew_returns_running_when_orchestration_active(factory);
    test_renew_returns_terminal_when_orchestration_completed(factory) validations::test_renew_returns_terminal_when_orchestration_completed(factory);
    test_same_activity_in_worker_items_and_cancelled_is_noop(factory) validations::test_same_activity_in_worker_items_and_cancelled_is_noop(factory);
    test_cascade_delete_hierarchy(factory) validations::deletion::test_cascade_delete_hierarchy(factory);
    test_delete_cleans_queues_and_locks(factory) validations::deletion::test_delete_cleans_queues_and_locks(factory);
    test_delete_get_instance_tree(factory) validations::deletion::test_delete_get_instance_tree(factory);
    test_delete_get_parent_id(factory) validations::deletion::test_delete_get_parent_id(factory);
    test_delete_instances_atomic(factory) validations::deletion::test_delete_instances_atomic(factory);
    test_delete_instances_atomic_force(factory) validations::deletion::test_delete_instances_atomic_force(factory);
    test_delete_instances_atomic_orphan_detection(factory) validations::deletion::test_delete_instances_atomic_orphan_detection(factory);
    test_delete_nonexistent_instance(factory) validations::deletion::test_delete_nonexistent_instance(factory);
    test_delete_running_rejected_force_succeeds(factory) validations::deletion::test_delete_running_rejected_force_succeeds(factory);
    test_delete_terminal_instances(factory) validations::deletion::test_delete_terminal_instances(factory);
    test_force_delete_prevents_ack_recreation(factory) validations::deletion::test_force_delete_prevents_ack_recreation(factory);
    test_list_children(factory) validations::deletion::test_list_children(factory);
    test_stale_activity_after_delete_recreate(factory) validations::deletion::test_stale_activity_after_delete_recreate(factory);
    test_prune_bulk(factory) validations::prune::test_prune_bulk(factory);
    test_prune_bulk_includes_running_instances(factory) validations::prune::test_prune_bulk_includes_running_instances(factory);
    test_prune_options_combinations(factory) validations::prune::test_prune_options_combinations(factory);
    test_prune_safety(factory) validations::prune::test_prune_safety(factory);
    test_delete_instance_bulk_cascades_to_children(factory) validations::bulk_deletion::test_delete_instance_bulk_cascades_to_children(factory);
    test_delete_instance_bulk_completed_before_filter(factory) validations::bulk_deletion::test_delete_instance_bulk_completed_before_filter(factory);
    test_delete_instance_bulk_filter_combinations(factory) validations::bulk_deletion::test_delete_instance_bulk_filter_combinations(factory);
    test_delete_instance_bulk_safety_and_limits(factory) validations::bulk_deletion::test_delete_instance_bulk_safety_and_limits(factory);
    test_ack_appends_event_to_corrupted_history(factory) validations::capability_filtering::test_ack_appends_event_to_corrupted_history(factory);
    test_ack_stores_pinned_version_via_metadata_update(factory) validations::capability_filtering::test_ack_stores_pinned_version_via_metadata_update(factory);
    test_concurrent_filtered_fetch_no_double_lock(factory) validations::capability_filtering::test_concurrent_filtered_fetch_no_double_lock(factory);
    test_continue_as_new_execution_gets_own_pinned_version(factory) validations::capability_filtering::test_continue_as_new_execution_gets_own_pinned_version(factory);
    test_fetch_corrupted_history_filtered_vs_unfiltered(factory) validations::capability_filtering::test_fetch_corrupted_history_filtered_vs_unfiltered(factory);
    test_fetch_deserialization_error_eventually_reaches_poison(factory) validations::capability_filtering::test_fetch_deserialization_error_eventually_reaches_poison(factory);
    test_fetch_deserialization_error_increments_attempt_count(factory) validations::capability_filtering::test_fetch_deserialization_error_increments_attempt_count(factory);
    test_fetch_filter_applied_before_history_deserialization(factory) validations::capability_filtering::test_fetch_filter_applied_before_history_deserialization(factory);
    test_fetch_filter_boundary_versions(factory) validations::capability_filtering::test_fetch_filter_boundary_versions(factory);
    test_fetch_filter_does_not_lock_skipped_instances(factory) validations::capability_filtering::test_fetch_filter_does_not_lock_skipped_instances(factory);
    test_fetch_filter_null_pinned_version_always_compatible(factory) validations::capability_filtering::test_fetch_filter_null_pinned_version_always_compatible(factory);
    test_fetch_filter_skips_incompatible_selects_compatible(factory) validations::capability_filtering::test_fetch_filter_skips_incompatible_selects_compatible(factory);
    test_fetch_single_range_only_uses_first_range(factory) validations::capability_filtering::test_fetch_single_range_only_uses_first_range(factory);
    test_fetch_with_compatible_filter_returns_item(factory) validations::capability_filtering::test_fetch_with_compatible_filter_returns_item(factory);
    test_fetch_with_filter_none_returns_any_item(factory) validations::capability_filtering::test_fetch_with_filter_none_returns_any_item(factory);
    test_fetch_with_incompatible_filter_skips_item(factory) validations::capability_filtering::test_fetch_with_incompatible_filter_skips_item(factory);
    test_filter_with_empty_supported_versions_returns_nothing(factory) validations::capability_filtering::test_filter_with_empty_supported_versions_returns_nothing(factory);
    test_pinned_version_immutable_across_ack_cycles(factory) validations::capability_filtering::test_pinned_version_immutable_across_ack_cycles(factory);
    test_pinned_version_stored_via_ack_metadata(factory) validations::capability_filtering::test_pinned_version_stored_via_ack_metadata(factory);
    test_provider_updates_pinned_version_when_told(factory) validations::capability_filtering::test_provider_updates_pinned_version_when_told(factory);
    test_abandoned_session_item_ignore_attempt(factory) validations::sessions::test_abandoned_session_item_ignore_attempt(factory);
    test_abandoned_session_item_retryable(factory) validations::sessions::test_abandoned_session_item_retryable(factory);
    test_ack_updates_session_last_activity(factory) validations::sessions::test_ack_updates_session_last_activity(factory);
    test_activity_lock_expires_session_lock_valid_same_worker_refetches(factory) validations::sessions::test_activity_lock_expires_session_lock_valid_same_worker_refetches(factory);
    test_both_locks_expire_different_worker_claims(factory) validations::sessions::test_both_locks_expire_different_worker_claims(factory);
    test_cleanup_keeps_active_sessions(factory) validations::sessions::test_cleanup_keeps_active_sessions(factory);
    test_cleanup_keeps_sessions_with_pending_items(factory) validations::sessions::test_cleanup_keeps_sessions_with_pending_items(factory);
    test_cleanup_removes_expired_no_items(factory) validations::sessions::test_cleanup_removes_expired_no_items(factory);
    test_cleanup_then_new_item_recreates_session(factory) validations::sessions::test_cleanup_then_new_item_recreates_session(factory);
    test_concurrent_session_claim_only_one_wins(factory) validations::sessions::test_concurrent_session_claim_only_one_wins(factory);
    test_different_sessions_different_workers(factory) validations::sessions::test_different_sessions_different_workers(factory);
    test_mixed_session_and_non_session_items(factory) validations::sessions::test_mixed_session_and_non_session_items(factory);
    test_non_session_items_fetchable_by_any_worker(factory) validations::sessions::test_non_session_items_fetchable_by_any_worker(factory);
    test_non_session_items_returned_with_session_config(factory) validations::sessions::test_non_session_items_returned_with_session_config(factory);
    test_none_session_skips_session_items(factory) validations::sessions::test_none_session_skips_session_items(factory);
    test_original_worker_reclaims_expired_session(factory) validations::sessions::test_original_worker_reclaims_expired_session(factory);
    test_renew_session_lock_active(factory) validations::sessions::test_renew_session_lock_active(factory);
    test_renew_session_lock_after_expiry_returns_zero(factory) validations::sessions::test_renew_session_lock_after_expiry_returns_zero(factory);
    test_renew_session_lock_no_sessions(factory) validations::sessions::test_renew_session_lock_no_sessions(factory);
    test_renew_session_lock_skips_idle(factory) validations::sessions::test_renew_session_lock_skips_idle(factory);
    test_renew_work_item_updates_session_last_activity(factory) validations::sessions::test_renew_work_item_updates_session_last_activity(factory);
    test_session_affinity_blocks_other_worker(factory) validations::sessions::test_session_affinity_blocks_other_worker(factory);
    test_session_affinity_same_worker(factory) validations::sessions::test_session_affinity_same_worker(factory);
    test_session_claimable_after_lock_expiry(factory) validations::sessions::test_session_claimable_after_lock_expiry(factory);
    test_session_item_claimable_when_no_session(factory) validations::sessions::test_session_item_claimable_when_no_session(factory);
    test_session_items_processed_in_order(factory) validations::sessions::test_session_items_processed_in_order(factory);
    test_session_lock_expires_activity_lock_valid_ack_succeeds(factory) validations::sessions::test_session_lock_expires_activity_lock_valid_ack_succeeds(factory);
    test_session_lock_expires_new_owner_gets_redelivery(factory) validations::sessions::test_session_lock_expires_new_owner_gets_redelivery(factory);
    test_session_lock_expires_same_worker_reacquires(factory) validations::sessions::test_session_lock_expires_same_worker_reacquires(factory);
    test_session_lock_renewal_extends_past_original_timeout(factory) validations::sessions::test_session_lock_renewal_extends_past_original_timeout(factory);
    test_session_takeover_after_lock_expiry(factory) validations::sessions::test_session_takeover_after_lock_expiry(factory);
    test_shared_worker_id_any_caller_can_fetch_owned_session(factory) validations::sessions::test_shared_worker_id_any_caller_can_fetch_owned_session(factory);
    test_some_session_returns_all_items(factory) validations::sessions::test_some_session_returns_all_items(factory);
    test_custom_status_clear(factory) validations::custom_status::test_custom_status_clear(factory);
    test_custom_status_default_on_new_instance(factory) validations::custom_status::test_custom_status_default_on_new_instance(factory);
    test_custom_status_none_preserves(factory) validations::custom_status::test_custom_status_none_preserves(factory);
    test_custom_status_nonexistent_instance(factory) validations::custom_status::test_custom_status_nonexistent_instance(factory);
    test_custom_status_polling_no_change(factory) validations::custom_status::test_custom_status_polling_no_change(factory);
    test_custom_status_set(factory) validations::custom_status::test_custom_status_set(factory);
    test_custom_status_version_increments(factory) validations::custom_status::test_custom_status_version_increments(factory);
    test_any_filter_fetches_everything(factory) validations::tag_filtering::test_any_filter_fetches_everything(factory);
    test_default_and_fetches_untagged_and_matching(factory) validations::tag_filtering::test_default_and_fetches_untagged_and_matching(factory);
    test_default_only_fetches_untagged(factory) validations::tag_filtering::test_default_only_fetches_untagged(factory);
    test_multi_runtime_tag_isolation(factory) validations::tag_filtering::test_multi_runtime_tag_isolation(factory);
    test_multi_tag_filter(factory) validations::tag_filtering::test_multi_tag_filter(factory);
    test_none_filter_returns_nothing(factory) validations::tag_filtering::test_none_filter_returns_nothing(factory);
    test_tag_preserved_through_ack_orchestration_item(factory) validations::tag_filtering::test_tag_preserved_through_ack_orchestration_item(factory);
    test_tag_round_trip_preservation(factory) validations::tag_filtering::test_tag_round_trip_preservation(factory);
    test_tag_survives_abandon_and_refetch(factory) validations::tag_filtering::test_tag_survives_abandon_and_refetch(factory);
    test_tags_fetches_only_matching(factory) validations::tag_filtering::test_tags_fetches_only_matching(factory);
    test_kv_clear_all(factory) validations::kv_store::test_kv_clear_all(factory);
    test_kv_clear_isolation(factory) validations::kv_store::test_kv_clear_isolation(factory);
    test_kv_clear_nonexistent_key(factory) validations::kv_store::test_kv_clear_nonexistent_key(factory);
    test_kv_clear_single(factory) validations::kv_store::test_kv_clear_single(factory);
    test_kv_cross_execution_overwrite(factory) validations::kv_store::test_kv_cross_execution_overwrite(factory);
    test_kv_cross_execution_remove_readd(factory) validations::kv_store::test_kv_cross_execution_remove_readd(factory);
    test_kv_delete_instance_cascades(factory) validations::kv_store::test_kv_delete_instance_cascades(factory);
    test_kv_delete_instance_with_children(factory) validations::kv_store::test_kv_delete_instance_with_children(factory);
    test_kv_delta_clear_all_tombstones_store(factory) validations::kv_store::test_kv_delta_clear_all_tombstones_store(factory);
    test_kv_delta_client_reads_merged(factory) validations::kv_store::test_kv_delta_client_reads_merged(factory);
    test_kv_delta_delete_instance_cascades(factory) validations::kv_store::test_kv_delta_delete_instance_cascades(factory);
    test_kv_delta_merged_on_can(factory) validations::kv_store::test_kv_delta_merged_on_can(factory);
    test_kv_delta_merged_on_completion(factory) validations::kv_store::test_kv_delta_merged_on_completion(factory);
    test_kv_delta_prune_untouched_key_survives(factory) validations::kv_store::test_kv_delta_prune_untouched_key_survives(factory);
    test_kv_delta_snapshot_excludes_current_execution(factory) validations::kv_store::test_kv_delta_snapshot_excludes_current_execution(factory);
    test_kv_delta_snapshot_includes_completed_execution(factory) validations::kv_store::test_kv_delta_snapshot_includes_completed_execution(factory);
    test_kv_delta_tombstone_overrides_store(factory) validations::kv_store::test_kv_delta_tombstone_overrides_store(factory);
    test_kv_empty_value(factory) validations::kv_store::test_kv_empty_value(factory);
    test_kv_execution_id_tracking(factory) validations::kv_store::test_kv_execution_id_tracking(factory);
    test_kv_get_nonexistent(factory) validations::kv_store::test_kv_get_nonexistent(factory);
    test_kv_get_unknown_instance(factory) validations::kv_store::test_kv_get_unknown_instance(factory);
    test_kv_instance_isolation(factory) validations::kv_store::test_kv_instance_isolation(factory);
    test_kv_large_value(factory) validations::kv_store::test_kv_large_value(factory);
    test_kv_overwrite(factory) validations::kv_store::test_kv_overwrite(factory);
    test_kv_prune_current_execution_protected(factory) validations::kv_store::test_kv_prune_current_execution_protected(factory);
    test_kv_prune_preserves_all_keys(factory) validations::kv_store::test_kv_prune_preserves_all_keys(factory);
    test_kv_prune_preserves_overwritten(factory) validations::kv_store::test_kv_prune_preserves_overwritten(factory);
    test_kv_set_after_clear(factory) validations::kv_store::test_kv_set_after_clear(factory);
    test_kv_set_and_get(factory) validations::kv_store::test_kv_set_and_get(factory);
    test_kv_snapshot_after_clear_all(factory) validations::kv_store::test_kv_snapshot_after_clear_all(factory);
    test_kv_snapshot_after_clear_single(factory) validations::kv_store::test_kv_snapshot_after_clear_single(factory);
    test_kv_snapshot_cross_execution(factory) validations::kv_store::test_kv_snapshot_cross_execution(factory);
    test_kv_snapshot_empty(factory) validations::kv_store::test_kv_snapshot_empty(factory);
    test_kv_snapshot_in_fetch(factory) validations::kv_store::test_kv_snapshot_in_fetch(factory);
    test_kv_special_chars_in_key(factory) validations::kv_store::test_kv_special_chars_in_key(factory);
    test_duplicate_start_preserves_pinned_handler(factory) race_replay::test_duplicate_start_preserves_pinned_handler(factory);
    test_continue_as_new_unregistered_backoff(factory) race_replay::test_continue_as_new_unregistered_backoff(factory);
    test_continue_as_new_poisoned_successor_is_own_execution(factory) race_replay::test_continue_as_new_poisoned_successor_is_own_execution(factory);
    test_continue_as_new_duplicate_start(factory) race_replay::test_continue_as_new_duplicate_start(factory);
    test_queue_race_cancellation_replay(factory) race_replay::test_queue_race_cancellation_replay(factory);
    test_continue_as_new_queue_race_replay(factory) race_replay::test_continue_as_new_queue_race_replay(factory);
    test_queue_replay_version_stamp_roundtrip(factory) race_replay::test_queue_replay_version_stamp_roundtrip(factory);
    test_positional_wait_race_replay(factory) race_replay::test_positional_wait_race_replay(factory);
    test_legacy_queue_race_decision_preserved(factory) race_replay::test_legacy_queue_race_decision_preserved(factory);
    test_continue_as_new_transition_delivery_stamped_0_1_30(factory)
        race_replay::test_continue_as_new_transition_delivery(factory, "0.1.30");
    test_continue_as_new_transition_delivery_stamped_0_1_31(factory)
        race_replay::test_continue_as_new_transition_delivery(factory, "0.1.31");
}

#[test]
fn nothing_is_left_out() {
    let source = installed_duroxide().join("src");
    let read = |file: &str| std::fs::read_to_string(source.join(file)).expect("a file of the package");
    let mut exported = exported_names(&read("provider_validations.rs"));
    exported.extend(public_functions(&read("provider_validation/race_replay.rs")));
    assert!(exported.len() > 220, "found only {} validations: has their list moved?", exported.len());

    let mut called: BTreeSet<String> = CALLED.iter().map(|name| validation_of(name)).collect();
    called.extend(FOR_SHORT_POLLING.iter().map(ToString::to_string));
    let missing: Vec<_> = exported.difference(&called).collect();
    assert!(missing.is_empty(), "validations nobody calls: {missing:?}");
    let unknown: Vec<_> = called.difference(&exported).collect();
    assert!(unknown.is_empty(), "the package does not export: {unknown:?}");
}

/// A validation called with several arguments has a test for each, told apart by what follows `_stamped_`.
fn validation_of(test: &str) -> String {
    test.split("_stamped_").next().unwrap_or(test).to_owned()
}

/// Where cargo put the package this test was built against.
fn installed_duroxide() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let run = |command: &mut Command| command.output().expect("a tool of the toolchain runs");
    let version = run(Command::new(env!("CARGO")).arg("-vV"));
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("cargo knows its host");
    // Only what was downloaded to build this very test.
    let output = run(Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--filter-platform",
            host,
            "--manifest-path",
        ])
        .arg(manifest));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let duroxide = packages.iter().find(|package| package["name"] == "duroxide").expect("duroxide is one");
    let manifest = duroxide["manifest_path"].as_str().expect("a path");
    Path::new(manifest).parent().expect("a folder").to_owned()
}

/// The names in every `pub use crate::provider_validation::<module>::{..};`.
fn exported_names(source: &str) -> BTreeSet<String> {
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let lists = code.split("pub use crate::provider_validation::").skip(1);
    let lists = lists.filter_map(|list| list.split_once("::{")?.1.split_once('}').map(|(names, _)| names));
    let names = lists.flat_map(|names| names.split(',')).map(|name| name.trim().to_owned());
    names.filter(|name| !name.is_empty()).collect()
}

fn public_functions(source: &str) -> BTreeSet<String> {
    let declared = source.split("pub async fn ").skip(1);
    declared.filter_map(|rest| rest.split(['<', '(']).next()).map(str::to_owned).collect()
}
