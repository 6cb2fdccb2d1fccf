"""The workloads as tf.data's guide has them: its own operations, two threads, whole batches where operations take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peers
from loaders import AHEAD, WORKERS
from workloads import CROP, MEAN, PADDING, ROW, STD, WINDOW, Workload

Build = Callable[[Any, Path, Workload], Any]


def photographs(tf: Any, folder: Path, work: Workload) -> Any:
    """Only the part that is wanted is decoded."""

    def made(path: Any) -> Any:
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            tf.zeros((1, 0, 4)),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.decode_and_crop_jpeg(data, tf.concat([begin[:2], size[:2]], 0), channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (CROP, CROP)))
        return tf.transpose((image - MEAN) / STD, (2, 0, 1))

    paths = tf.data.Dataset.from_tensor_slices(work.records.paths).shuffle(len(work.records)).repeat()  # type: ignore[attr-defined]
    return paths.map(made, num_parallel_calls=WORKERS).batch(work.size)


def small_images(tf: Any, folder: Path, work: Workload) -> Any:
    """Out of one tensor."""

    def made(image: Any) -> Any:
        padded = tf.pad(image, ((PADDING, PADDING), (PADDING, PADDING), (0, 0)), "REFLECT")
        return tf.image.random_flip_left_right(tf.image.random_crop(padded, (32, 32, 3)))

    images = tf.data.Dataset.from_tensor_slices(work.records).shuffle(10_000).repeat()
    return images.map(made, num_parallel_calls=WORKERS).batch(work.size)


def tokens(tf: Any, folder: Path, work: Workload) -> Any:
    """Records of a fixed length, widened by the batch."""
    rows = tf.data.FixedLengthRecordDataset(str(folder / "train.bin"), 2 * ROW).repeat().shuffle(2000)

    def widened(rows: Any) -> Any:
        return tf.cast(tf.io.decode_raw(rows, tf.uint16), tf.int64)

    return rows.batch(work.size).map(widened, num_parallel_calls=WORKERS)


def audio(tf: Any, folder: Path, work: Workload) -> Any:
    """Recordings in one tensor, beside where each begins and ends."""
    ends = np.load(folder / "ends.npy")
    flat = tf.constant(np.load(folder / "waves.npy"))

    def made(start: Any, end: Any) -> Any:
        first = start + tf.cast(tf.random.uniform(()) * tf.cast(end - start - WINDOW + 1, tf.float32), tf.int64)
        return flat[first : first + WINDOW] * 10 ** tf.random.uniform((), -0.3, 0.3)

    places = tf.data.Dataset.from_tensor_slices((np.r_[0, ends[:-1]], ends)).shuffle(len(ends)).repeat()
    return places.map(made, num_parallel_calls=WORKERS).batch(work.size, drop_remainder=True)


def unequal(tf: Any, folder: Path, work: Workload) -> Any:
    """Padded by its own batches."""

    def made(data: Any) -> Any:
        return tf.cast(tf.io.decode_raw(tf.io.decode_compressed(data, "ZLIB"), tf.int16), tf.float32)

    series = tf.data.Dataset.from_tensor_slices(work.records).shuffle(len(work.records)).repeat()
    return series.map(made, num_parallel_calls=WORKERS).padded_batch(work.size)


BUILDS: dict[str, Build] = {
    "photographs": photographs,
    "small images": small_images,
    "tokens": tokens,
    "audio windows": audio,
    "unequal mix": unequal,
}


def tf_data(name: str, folder: Path, work: Workload) -> Iterator[Any] | None:
    """tf.data, two threads."""
    tf = peers.tensorflow()
    if tf is None:
        return None
    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS
    batches: Iterator[Any] = BUILDS[name](tf, folder, work).prefetch(AHEAD).with_options(options).as_numpy_iterator()
    return batches
