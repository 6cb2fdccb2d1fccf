"""Every row of the README's table for those who come from DataFlow, and every promise beyond it, names the tests that hold it."""

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
README = HERE.parent / "README.md"

ROWS = {
    "MyDataFlow": ["sources::foreign_objects_are_reset_once_and_iterated", "sources::get_data_and_size_without_a_reset"],
    "df.reset_state()": ["flows::an_untouched_program_repeats_itself", "flows::reset_state_sets_seed_and_epoch_zero_and_returns_the_flow"],
    "MapData(": ["transform::map_keeps_none", "transform::filter_map_drops_none_and_nothing_else"],
    "MapDataComponent(": ["transform::map_component_replaces_one_component_and_keeps_the_type"],
    "SelectComponent(": ["transform::select_keeps_the_named_components_in_the_order_given"],
    "BatchData(": [
        "batching::batches_are_chunks",
        "batching::a_batch_has_the_form_of_its_datapoints",
        "batching::as_list_keeps_whatever_it_is_given",
        "batching::unequal_shapes_are_refused_and_shown_with_the_mend",
    ],
    "BatchDataByShape(": ["batch_by::images_are_batched_by_their_shape", "batch_by::what_is_left_comes_in_order_of_the_first_that_waits"],
    "FixedSizeData(": [
        "repeating::epoch_of_is_tensorpacks_fixed_size_data",
        "repeating::take_of_cycle_is_fixed_size_data_that_keeps_no_state",
    ],
    "RepeatedData(": ["ordering::repeat_gives_the_source_so_many_times", "ordering::rounds_are_newly_random"],
    "RepeatedDataPoint(": ["repeating::repeat_each_is_itertools_repeat_and_tensorpacks_repeated_data_point"],
    "RandomChooseData(": ["mixing::*"],
    "RandomMixData(": ["mixing::*"],
    "ConcatData(": ["combining::concat_is_chain"],
    "JoinData(": [
        "combining::zip_components_joins_components_in_their_form",
        "combining::zip_components_refuses_a_key_that_comes_twice",
        "combining::unequal_lengths_are_refused_unless_they_are_asked_for",
    ],
    "LocallyShuffleData(": ["ordering::shuffle_buffer_gives_each_datapoint_once_and_holds_no_more_than_its_size"],
    "CacheData(": ["caching::an_unfinished_pass_is_useful_and_is_not_taken_for_a_whole_one", "storing::*"],
    "PrintData(": ["seeing::describe_shows_every_component", "seeing::print_datapoint_is_made_for_tap"],
    "TestDataSpeed(": ["seeing::speed_counts_datapoints_seconds_and_bytes", "seeing::speed_gives_the_data_back"],
    "FakeData(": ["making::datapoints_have_the_form_of_the_shapes"],
    "DataFromQueue": [
        "making::a_pass_reads_until_the_sentinel_and_the_next_one_reads_on",
        "making::no_datapoint_in_time_is_an_error_and_the_next_pass_goes_on",
    ],
    "RNGDataFlow": ["randomness::*", "tapping::seeded_draws_the_same_for_the_same_datapoint_and_run"],
    "MultiProcessRunnerZMQ(": ["parallel::*"],
    "MultiProcessRunner(": ["parallel::every_setting_gives_the_serial_output_and_state"],
    "MultiProcessMapData(": ["parallel::*", "scheduling::*"],
    "MultiProcessMapAndBatchData(": ["scheduling::*"],
    "MultiProcessMapDataComponentSharedArray": ["transport::*", "buffers::*"],
    "DataFlowTerminated": ["flows::iterators_are_independent"],
}

BEYOND = {
    "random access, lazy global shuffle, a bijection for every length": ["randomness::*", "ordering::shuffle_gives_each_datapoint_once"],
    "exact resume, with other worker counts and other world sizes": ["flows::*", "parallel::*"],
    "the same stream for any number of workers": ["laws::random_pipelines_are_the_same_in_processes"],
    "padded batch": ["collating::batches_are_those_of_padded_batch"],
    "bucket by length": ["batch_by::batches_by_length_are_those_of_bucket_by_sequence_length"],
    "token budget": ["batch_by::no_batch_has_more_tokens_than_it_may"],
    "sequence packing": ["packing::rows_are_those_of_grain", "packing::no_token_is_lost_or_doubled"],
    "full batches with a mask on every rank": ["multiples::every_rank_has_as_many_full_batches_and_counts_every_datapoint_once"],
    "weighted and explicit sampling": ["sampling::*", "ordering::subset_is_fancy_indexing"],
    "plan on metadata, load later": ["nesting::a_plan_on_metadata_is_loaded_later"],
    "per-process resources": ["transform::per_process_makes_its_resource_once_and_late"],
    "exact-quota deterministic mix, stop rules, schedules": ["mixing::*"],
    "window": ["batching::windows_are_those_of_more_itertools_without_its_filling"],
    "scan": ["streaming::scan_is_accumulate"],
    "take_while": ["streaming::take_while_is_takewhile"],
    "unique": ["streaming::unique_is_unique_everseen"],
    "unbatch": ["batching::unbatch_is_the_inverse_of_batch"],
    "rebatch": ["rebatching::batches_are_those_of_tf_data"],
    "interleave": ["streaming::interleave_is_tensorflows_algorithm", "streaming::interleave_resumes_where_it_stood"],
    "flat_map": ["transform::flat_map_chains_what_the_function_gives"],
    "group_by": ["batch_by::batches_by_key_are_those_of_group_by_window"],
    "error policy with retry and budget": ["guarding::*"],
    "workers that die are replaced, nothing lost": ["faults::killed_workers_lose_nothing"],
    "recycled buffers, zero-copy": ["buffers::*", "transport::an_array_that_was_made_at_the_desk_is_not_copied"],
    "public law checks": ["laws::random_pipelines_keep_the_laws"],
}


def names_in(name):
    tree = ast.parse((HERE / f"test_{name}.py").read_text(encoding="utf8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def rows():
    text = README.read_text(encoding="utf8")
    table = text[text.index("## Coming from DataFlow") : text.index("Coming from elsewhere")]
    return re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)


def test_every_row_of_the_table_has_its_tests():
    known = {row: [start for start in ROWS if f"`{start}" in row] for row in rows()}
    assert len(known) == len(ROWS)
    assert [row for row, found in known.items() if not found] == []


@pytest.mark.parametrize("row", [*ROWS, *BEYOND])
def test_the_tests_of_a_row_are_there(row):
    for named in {**ROWS, **BEYOND}[row]:
        file, test = named.split("::")
        found = names_in(file)
        assert found
        assert test == "*" or f"test_{test}" in found
