//! The one suite that every engine passes: the contract of [`crate::engine`], as assertions.
//!
//! Each check makes a fresh engine. What an engine does after a crash of its process is tested beside it.

mod blobs;
mod logs;
mod records;
mod tables;

use crate::engine::Engine;

/// Runs every check; `make` gives a new, empty engine each time.
///
/// # Panics
/// When the engine breaks the contract: this is a test.
pub async fn run_all<E: Engine>(make: impl AsyncFn() -> E) {
    logs::an_empty_session_reads_empty(&make().await).await;
    logs::every_kind_of_record_comes_back_as_it_was(&make().await).await;
    logs::positions_rise_over_all_lanes(&make().await).await;
    logs::control_is_compare_and_swap(&make().await).await;
    logs::one_of_many_claimants_wins(&make().await).await;
    logs::a_stale_claim_writes_nothing(&make().await).await;
    logs::a_record_over_the_limit_is_refused_and_the_largest_is_not(&make().await).await;
    logs::a_writer_reads_what_was_acknowledged(&make().await).await;
    logs::a_reader_never_sees_the_past_change(&make().await).await;
    logs::pages_are_bounded_and_filtered(&make().await).await;
    logs::the_head_tells_of_each_append(&make().await).await;
    logs::sessions_are_apart_and_can_be_dropped(&make().await).await;
    logs::a_closed_session_goes_on(&make().await).await;
    logs::trimming_takes_one_lane_only(&make().await).await;
    logs::trimming_takes_several_runs_at_once_and_no_other(&make().await).await;
    logs::trimming_a_document_frees_its_space(&make().await).await;
    logs::the_fold_of_what_was_written_counts_all_of_it(&make().await).await;
    tables::rows_change_by_compare_and_swap(&make().await).await;
    tables::a_deleted_row_never_has_an_old_revision(&make().await).await;
    tables::a_scan_is_one_table_in_order(&make().await).await;
    tables::a_value_over_the_limit_is_refused(&make().await).await;
    tables::a_watch_misses_nothing(&make().await).await;
    tables::one_of_many_writers_of_a_row_wins(&make().await).await;
    blobs::blobs_are_what_their_names_say(&make().await).await;
    blobs::bytes_become_a_blob_with_their_hash_as_its_name(&make().await).await;
    blobs::blobs_that_were_listed_are_removed_and_no_others(&make().await).await;
    blobs::a_blob_that_is_put_again_is_another_than_was_listed(&make().await).await;
    blobs::a_put_that_returned_is_not_undone_by_a_removal_beside_it(&make().await).await;
    blobs::what_was_put_just_now_is_not_old(&make().await).await;
    blobs::a_shims_copy_goes_with_its_blob_unless_it_came_again(&make().await).await;
}
