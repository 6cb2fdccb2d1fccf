"""Every row of the tables of examples/from_dataflow.md and examples/from_others.md for those who come from other
libraries, and every promise beyond them, names the tests that hold it."""

import ast
import builtins
import contextlib
import functools
import inspect
import re
from pathlib import Path

import pytest
from migrating import tables
from rows_of_others import OTHERS

import flowfn
import flowfn.datasets
import flowfn.formats
import flowfn.image
import flowfn.interop
import flowfn.serving

PLACES = [flowfn, flowfn.image, flowfn.formats, flowfn.datasets, flowfn.interop, flowfn.serving]
NOT_OURS = {"aug", "f", "MyDataFlow", "DataLoader", *dir(builtins)}
HERE = Path(__file__).parent

ROWS = {
    "MyDataFlow": [
        "sources::foreign_objects_are_reset_once_and_iterated",
        "sources::get_data_and_size_without_a_reset",
    ],
    "df.reset_state()": [
        "flows::an_untouched_program_repeats_itself",
        "flows::reset_state_sets_seed_and_epoch_zero_and_returns_the_flow",
    ],
    "MapData(": ["transform::map_keeps_none", "transform::filter_map_drops_none_and_nothing_else"],
    "MapDataComponent(": ["transform::map_component_replaces_one_component_and_keeps_the_type"],
    "SelectComponent(": ["transform::select_keeps_the_named_components_in_the_order_given"],
    "BatchData(": [
        "batching::batches_are_chunks",
        "batching::a_batch_has_the_form_of_its_datapoints",
        "batching::as_list_keeps_whatever_it_is_given",
        "batching::unequal_shapes_are_refused_and_shown_with_the_mend",
    ],
    "BatchDataByShape(": [
        "batch_by::images_are_batched_by_their_shape",
        "batch_by::what_is_left_comes_in_order_of_the_first_that_waits",
    ],
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
    "send_dataflow_zmq(": [
        "serving::a_queue_gives_each_datapoint_to_one_consumer",
        "serving::several_servers_feed_one_consumer",
    ],
    "DataFlowTerminated": ["flows::iterators_are_independent"],
}

IMAGES = {
    "ImageFromFile(": [
        "image/reading::read_images_is_a_flow_over_files_and_a_stage",
        "image/reading::every_format_comes_out_in_rgb_order",
        "image/reading::the_laws_hold_in_threads_and_processes",
    ],
    "AugmentImageComponent(": [
        "image/augmenting::index_and_image_say_the_same",
        "image/augmenting::what_comes_in_is_not_changed",
        "image/augmenting::a_failing_function_may_be_guarded",
        "image/augmenting::the_laws_hold_in_processes",
    ],
    "AugmentImageCoordinates(": [
        "image/augmenting::a_marked_pixel_lands_where_its_coordinate_says",
        "image/augmenting::points_stay_where_they_leave_the_image_and_keep_their_dtype",
        "image/geometry::every_pixel_lands_where_its_coordinate_says",
    ],
    "AugmentImageComponents(": [
        "image/augmenting::several_images_and_masks_are_augmented_alike",
        "image/augmenting::points_in_two_components_are_kept_apart",
        "image/augmenting::boxes_that_leave_take_their_labels_along",
    ],
    "fbresnet_augmentor(": [
        "image/presets::*",
        "examples::imagenet_feeds_training_and_validation_from_files_and_from_one_file",
    ],
    "AugmentorList(": [
        "image/composing::a_sequence_hands_each_the_shape_it_will_see",
        "image/transforms::a_composition_is_one_after_the_other",
    ],
    "Identity(": ["image/composing::identity_is_nothing", "image/transforms::identity_returns_what_it_is_given"],
    "RandomApplyAug(": [
        "image/composing::apply_randomly_is_as_frequent_as_it_says",
        "image/composing::apply_randomly_draws_the_same_either_way",
    ],
    "RandomChooseAug(": ["image/composing::choose_is_even_or_weighted"],
    "RandomOrderAug(": ["image/composing::shuffled_gives_every_order"],
    "MapImage(": [
        "image/composing::functions_are_augmentors_too",
        "image/composing::a_mapped_function_leaves_masks_and_coordinates",
        "image/augmenting::a_transform_of_ones_own_is_enough",
    ],
    "Albumentations(": [
        "image/with_libraries::all_that_belongs_to_a_datapoint_goes_together",
        "image/with_libraries::albumentations_draws_from_the_datapoints_generator_and_from_nothing_else",
        "image/with_libraries::torchvision_points_go_where_the_image_goes",
        "image/with_libraries::they_mix_with_augmentors_and_functions",
        "image/augmenting::functions_of_an_image_are_augmentors",
    ],
    "IAAugmentor(": ["image/composing::a_mapped_function_leaves_masks_and_coordinates"],
    "Flip(": ["image/geometry::flips_are_numpys", "image/geometry::a_flip_is_as_frequent_as_it_says"],
    "Resize(": [
        "image/geometry::linear_resizing_is_the_formula",
        "image/geometry::linear_and_cubic_resizing_are_scikit_images",
    ],
    "ResizeShortestEdge(": [
        "image/geometry::the_shortest_edge_is_as_asked_and_proportions_are_kept",
        "image/geometry::the_shortest_edge_may_be_drawn",
    ],
    "RandomResize(": ["image/geometry::random_resize_keeps_to_its_ranges_and_proportions"],
    "Transpose(": ["image/geometry::flips_are_numpys"],
    "RandomCrop(": ["image/cropping::a_crop_is_numpys_slice", "image/cropping::crops_come_from_everywhere_alike"],
    "CenterCrop(": ["image/cropping::the_middle_is_the_middle"],
    "RandomCropRandomShape(": [
        "image/cropping::random_shapes_keep_to_their_bounds",
        "image/cropping::random_shapes_keep_their_proportions",
    ],
    "GoogleNetRandomCropAndResize(": [
        "image/cropping::a_resized_crop_is_a_crop_that_is_resized",
        "image/cropping::resized_crops_cover_areas_and_proportions_evenly",
        "image/cropping::where_no_part_fits_it_is_the_largest_in_the_middle",
    ],
    "RandomCutout(": [
        "image/cropping::cutout_paints_a_rectangle_of_a_copy",
        "image/cropping::cutout_is_drawn_from_everywhere_in_its_sizes",
    ],
    "CenterPaste(": ["image/cropping::a_paste_is_numpys_padding"],
    "RandomPaste(": ["image/cropping::pastes_are_in_the_middle_or_everywhere"],
    "ConstantBackgroundFiller(": [
        "image/cropping::backgrounds_are_colours_or_functions",
        "image/cropping::a_random_background_is_fixed_by_the_transform",
    ],
    "Shift(": ["image/geometry::shifts_are_whole_pixels_in_their_range", "image/geometry::borders_are_numpys"],
    "Rotation(": [
        "image/geometry::rotation_is_scikit_images",
        "image/geometry::rotation_turns_about_a_drawn_point_by_a_multiple_of_the_step",
    ],
    "RotationAndCropValid(": ["image/geometry::the_valid_crop_is_valid_and_the_largest"],
    "Affine(": [
        "image/geometry::affine_is_scikit_images",
        "image/geometry::affine_shears_scales_turns_and_moves_in_that_order",
    ],
    "GaussianDeform(": [
        "image/geometry::deformation_is_its_formula",
        "image/geometry::deformed_coordinates_invert_the_map_exactly",
    ],
    "Hue(": ["image/colors::hue_turns_hues_as_colorsys_does"],
    "Brightness(": ["image/colors::brightness_adds_what_is_drawn_and_brightness_scale_multiplies"],
    "BrightnessScale(": ["image/colors::brightness_adds_what_is_drawn_and_brightness_scale_multiplies"],
    "Contrast(": [
        "image/colors::contrast_multiplies_distances_from_the_mean_of_each_channel",
        "image/colors::contrast_around_the_mean_of_the_gray_image",
    ],
    "MeanVarianceNormalize(": ["image/intensities::mean_variance_normalize_is_the_formula"],
    "MinMaxNormalize(": ["image/intensities::min_max_normalize_is_the_formula_and_goes_exactly_from_low_to_high"],
    "GaussianBlur(": [
        "image/intensities::blur_is_scikit_images",
        "image/intensities::radius_and_sigma_are_drawn_from_their_ranges",
    ],
    "Gamma(": ["image/colors::gamma_is_a_power_of_the_share_of_white"],
    "Clip(": ["image/intensities::clip_is_numpys_and_rounds_its_bounds_for_uint8"],
    "Saturation(": ["image/colors::saturation_multiplies_distances_from_gray"],
    "Lighting(": [
        "image/colors::lighting_adds_a_colour_along_the_principal_axes",
        "image/colors::lighting_is_distributed_as_the_eigenvalues_say",
    ],
    "JpegNoise(": ["image/noise::jpeg_noise_is_what_pillow_makes_of_it", "image/noise::jpeg_noise_knows_red_from_blue"],
    "GaussianNoise(": ["image/noise::gaussian_noise_is_normal"],
    "SaltPepperNoise(": ["image/noise::salt_and_pepper_come_as_often_as_asked_for"],
    "ColorSpace(": ["image/colors::color_spaces_are_those_of_scikit_image", "image/colors::color_spaces_lead_back"],
    "Grayscale(": ["image/colors::gray_is_what_bt_601_says_in_the_shape_asked_for"],
    "ToUint8(": ["image/intensities::to_uint8_rounds_and_clips_and_never_wraps"],
    "ToFloat32(": ["image/intensities::conversions_take_any_dtype_and_return_what_is_so_already"],
}

FORMATS = {
    "LMDBSerializer.save(": [
        "formats/lmdb::what_was_written_comes_back",
        "formats/lmdb::tensorpack_can_read_ours",
        "formats/lmdb::writing_goes_on_where_it_was_broken_off",
        "formats/writing::a_killed_program_leaves_no_half_file_under_the_final_name",
    ],
    "LMDBSerializer.load(": [
        "formats/lmdb::files_of_tensorpack_are_read",
        "formats/lmdb::a_pickle_is_not_opened_unless_it_may_be",
        "formats/lmdb::a_file_is_a_seekable_flow",
    ],
    "LMDBData(": [
        "formats/lmdb::databases_of_others_are_read_in_their_order",
        "formats/lmdb::keys_are_those_that_the_user_names",
        "formats/lmdb::keys_that_the_database_lists_decide_the_order",
    ],
    "LMDBDataDecoder(": ["formats/lmdb::databases_of_others_are_read_in_their_order"],
    "CaffeLMDB(": [
        "formats/lmdb::raw_images_of_caffe_come_in_rgb",
        "formats/lmdb::encoded_images_of_caffe_are_decoded",
    ],
    "HDF5Data(": [
        "formats/hdf5::what_h5py_wrote_is_read_in_any_order",
        "formats/hdf5::datasets_are_chosen_by_name_wherever_they_lie",
    ],
    "HDF5Serializer.save(": ["formats/hdf5::what_was_written_comes_back_and_h5py_reads_it"],
    "NumpySerializer.save(": ["formats/arrays::numpy_reads_what_is_written"],
    "NumpySerializer.load(": [
        "formats/arrays::what_numpy_saved_in_an_npz_is_read_and_gathered",
        "formats/arrays::objects_are_not_unpickled_unless_allowed",
    ],
    "TFRecordSerializer.save(": [
        "formats/tfrecord::a_file_is_a_seekable_flow",
        "formats/tfrecord::checksums_are_those_of_the_specification",
        "formats/tfrecord::an_example_is_a_message_that_protobuf_reads",
    ],
    "TFRecordSerializer.load(": [
        "formats/tfrecord::files_of_tensorpack_are_read",
        "formats/tfrecord::files_of_tensorflow_are_read",
        "formats/tfrecord::every_flipped_byte_is_found",
        "formats/tfrecord::a_pickle_is_not_opened_unless_it_may_be",
    ],
    "SVMLightData(": ["formats/text::scikit_learn_reads_what_is_written_and_the_other_way"],
}

DATASETS = {
    "Mnist(": [
        "datasets/mnist::datapoints_are_image_and_label",
        "datasets/mnist::a_missing_file_is_named_with_its_page_and_its_place",
        "datasets/mnist::a_broken_file_says_what_is_wrong",
        "datasets/mnist::the_laws_hold",
        "examples::mnist_reads_its_own_files_and_learns",
    ],
    "FashionMnist(": ["datasets/mnist::fashion_mnist_has_files_of_the_same_names"],
    "Cifar10(": [
        "datasets/cifar::both_versions_of_cifar10_are_read_and_pickles_of_any_protocol",
        "datasets/cifar::a_hostile_pickle_runs_nothing_and_is_refused",
        "datasets/statistics::images_of_any_sizes_have_statistics_for_each_channel",
        "datasets/statistics::they_are_numpys",
    ],
    "Cifar100(": [
        "datasets/cifar::cifar100_has_fine_and_coarse_labels",
        "datasets/cifar::there_are_a_hundred_labels_and_twenty",
    ],
    "SVHNDigit(": [
        "datasets/matlab_sets::svhn_gives_digits_and_zero_is_zero",
        "datasets/matlab_sets::whole_numbers_have_a_box_for_each_digit",
        "datasets/matlab_sets::a_missing_file_is_named",
    ],
    "ILSVRC12(": [
        "datasets/ilsvrc::images_are_decoded_in_rgb",
        "datasets/ilsvrc::boxes_come_with_their_images_and_none_where_there_are_none",
        "datasets/ilsvrc::what_is_missing_is_named_with_its_page",
    ],
    "ILSVRC12Files(": [
        "datasets/ilsvrc::files_come_in_the_order_of_caffes_lists",
        "datasets/ilsvrc::the_validation_set_may_lie_in_folders",
        "datasets/ilsvrc::folders_of_synsets_can_do_without_lists",
    ],
    "ILSVRCMeta(": [
        "datasets/ilsvrc::synsets_and_labels_are_those_of_the_archive",
        "datasets/ilsvrc::the_mean_image_is_rgb",
    ],
    "TinyImageNet(": [
        "datasets/lists::tiny_imagenet_is_listed_and_decoded",
        "datasets/lists::what_is_missing_of_tiny_imagenet_is_named",
    ],
    "Places365Standard(": [
        "datasets/lists::places_are_listed_by_the_official_lists_in_both_sizes",
        "datasets/lists::places_are_listed_in_the_easy_layout",
        "datasets/lists::what_is_missing_of_places_is_named",
    ],
    "Caltech101Silhouettes(": ["datasets/matlab_sets::silhouettes_stand_upright"],
    "BSDS500(": [
        "datasets/matlab_sets::images_are_listed_beside_what_people_have_drawn",
        "datasets/matlab_sets::boundaries_are_the_share_of_people_who_drew_them",
        "datasets/matlab_sets::all_images_can_lie_so_that_they_stack",
    ],
}

ROWS |= {**IMAGES, **FORMATS, **DATASETS}

BEYOND = {
    "random access, lazy global shuffle, a bijection for every length": [
        "randomness::*",
        "ordering::shuffle_gives_each_datapoint_once",
    ],
    "exact resume, with other worker counts and other world sizes": ["flows::*", "parallel::*"],
    "the same stream for any number of workers": ["laws::random_pipelines_are_the_same_in_processes"],
    "padded batch": ["collating::batches_are_those_of_padded_batch"],
    "bucket by length": ["batch_by::batches_by_length_are_those_of_bucket_by_sequence_length"],
    "token budget": ["batch_by::no_batch_has_more_tokens_than_it_may"],
    "sequence packing": ["packing::rows_are_those_of_grain", "packing::no_token_is_lost_or_doubled"],
    "full batches with a mask on every rank": [
        "multiples::every_rank_has_as_many_full_batches_and_counts_every_datapoint_once"
    ],
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
    "recycled buffers, zero-copy": ["buffers::*", "shared_memory::an_array_that_was_made_at_the_desk_is_not_copied"],
    "public law checks": ["laws::random_pipelines_keep_the_laws"],
    "Parquet and Arrow": [
        "formats/tables::what_pyarrow_wrote_is_read_as_pyarrow_reads_it",
        "formats/tables::pyarrow_reads_what_is_written",
        "formats/tables::columns_and_files_are_chosen",
        "formats/tables::a_damaged_group_says_which_datapoints",
    ],
    "WebDataset": [
        "formats/tar::webdataset_reads_what_is_written_here",
        "formats/tar::what_webdataset_writes_is_read",
        "formats/tar::shuffling_reads_only_what_it_gives",
        "formats/tar::names_that_lead_out_of_the_folder_are_refused",
    ],
    "CSV": [
        "formats/text::awkward_files_are_read_as_pythons_reader_reads_them",
        "formats/text::pandas_reads_what_is_written_and_the_other_way",
    ],
    "JSON lines": [
        "formats/text::json_comes_back_and_python_reads_it",
        "formats/text::what_pandas_and_pyarrow_know_is_read",
    ],
    "Zarr": [
        "formats/zarr::what_zarr_wrote_is_read_in_any_order",
        "formats/zarr::what_was_written_comes_back_and_zarr_reads_it",
    ],
    "npy": [
        "formats/arrays::what_numpy_saved_is_read",
        "formats/arrays::uncompressed_arrays_are_mapped_and_rows_are_views_that_nobody_writes_to",
    ],
    "many files at once, by processes": [
        "formats/sharding::processes_write_the_files",
        "formats/sharding::read_in_turns_the_files_give_the_flow",
    ],
    "URLs": [
        "formats/urls::what_is_written_to_memory_is_read_from_there",
        "formats/urls::what_a_web_server_gives_in_pieces_is_read",
    ],
    "image_folder": [
        "datasets/image_folder::labels_are_the_folders_and_everything_is_in_natural_order",
        "datasets/image_folder::links_are_followed_and_circles_do_no_harm",
        "datasets/image_folder::a_folder_that_cannot_be_read_is_an_error",
        "datasets/image_folder::very_many_files_take_little_memory",
    ],
    "image, mask and points together, in a picture": ["examples::segmentation_moves_image_mask_and_points_together"],
    "all augmentors on one sheet": ["examples::augmentors_are_all_on_one_sheet"],
}


@functools.cache
def names_in(name):
    folder, _, file = name.rpartition("/")
    (path,) = [*(HERE / folder).rglob(f"test_{file}.py")] or [HERE / folder / f"{file}.py"]
    tree = ast.parse(path.read_text(encoding="utf8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


ROWS = {"tensorpack's DataFlow": ROWS, **OTHERS}
TABLES = tables("from_dataflow.md") | tables("from_others.md")


def calls(cell):
    """The calls, and the bare names, in a cell of the table that are Python."""
    for written in re.findall("`(.*?)`", cell):
        with contextlib.suppress(SyntaxError):  # half a sentence: `for dp in flow`, `background=v`
            tree = ast.parse(written, mode="eval").body
            yield from tree.elts if isinstance(tree, ast.Tuple) else [tree]


def pieces(cell):
    """What of these is looked up and called: calls anywhere within them, and names that stand alone."""
    for tree in calls(cell):
        yield from ([tree] if isinstance(tree, ast.Name) else [])
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def found(function, not_ours):
    """What of ours is called so, a word or a method of a flow; None where it is one of those that are not."""
    if isinstance(function, ast.Name):
        named = [getattr(place, function.id) for place in PLACES if hasattr(place, function.id)]
        assert len(named) == 1 or function.id in not_ours, function.id
        return named[0] if named else None
    return getattr(flowfn.Flow, function.attr) if getattr(function.value, "id", None) == "flow" else None


@pytest.mark.parametrize("library", TABLES)
def test_every_row_of_a_table_has_its_tests(library):
    named = ROWS[library]
    known = {
        row: [start for start in named if row.startswith(start) or f"`{start}" in row] for row, _, _ in TABLES[library]
    }
    assert len(known) == len(TABLES[library]) == len(named)
    assert [row for row, found in known.items() if not found] == []
    assert {start for found in known.values() for start in found} == set(named)


@pytest.mark.parametrize("cells", [cells for table in TABLES.values() for cells in table], ids=" - ".join)
def test_what_a_row_says_to_write_is_there(cells):
    _, ours, different = cells
    for cell, not_ours in ((ours, NOT_OURS), (different, {*re.findall(r"\w+", different)})):
        for node in pieces(cell):
            named = found(node.func if isinstance(node, ast.Call) else node, not_ours)
            if named is not None and isinstance(node, ast.Call):
                given = [one for one in node.args if getattr(one, "value", None) is not ...]
                keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
                inspect.signature(named).bind_partial(*given, **keywords)


@pytest.mark.parametrize(
    "tests",
    {"; ".join(tests): tests for rows in [*ROWS.values(), BEYOND] for tests in rows.values()}.values(),
    ids="; ".join,
)
def test_the_tests_of_a_row_are_there(tests):
    for named in tests:
        file, test = named.split("::")
        found = names_in(file)
        assert found
        assert test == "*" or f"test_{test}" in found
