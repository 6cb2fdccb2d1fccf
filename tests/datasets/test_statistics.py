"""Mean and standard deviation of images, against numpy's own; and the package's names."""

import sys

import numpy as np
import pytest

import flowfn as ff
import flowfn.datasets
from flowfn.datasets import IMAGENET_STATISTICS, image_statistics


def images(dtype, shape=(5, 4, 3), count=7):
    rng = np.random.default_rng(0)
    return [(rng.random(shape) * 200 + 50).astype(dtype) for _ in range(count)]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 4, 3), (5, 4), (5, 4, 1)])
def test_they_are_numpys(dtype, shape):
    made = images(dtype, shape)
    flow = ff.flow([[image, 0] for image in made])
    stacked = np.stack(made).astype(np.float64)
    pixel, channel = image_statistics(flow, per="pixel"), image_statistics(flow)
    np.testing.assert_allclose(pixel.mean, stacked.mean(0), rtol=1e-12)
    np.testing.assert_allclose(pixel.std, stacked.std(0), rtol=1e-9)
    np.testing.assert_allclose(channel.mean, stacked.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(channel.std, stacked.std((0, 1, 2)), rtol=1e-9)
    assert flow.state_dict()["epoch"] == 0


def test_a_large_offset_cancels_nothing():
    made = [image + 1e8 for image in images("float64")]
    np.testing.assert_allclose(image_statistics([[one] for one in made]).std, np.stack(made).std((0, 1, 2)), rtol=1e-6)


def test_images_of_any_sizes_have_statistics_for_each_channel():
    made = [np.zeros((2, 3, 3), np.uint8), np.full((1, 1, 3), 7, np.uint8)]
    assert image_statistics([{"image": one} for one in made], "image").mean.tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(
        ValueError, match=r"images must have the same shape, but \(2, 3, 3\) is followed by \(1, 1, 3\) at 1"
    ):
        image_statistics([[one] for one in made], per="pixel")


def test_what_is_no_image_is_refused():
    with pytest.raises(
        ValueError, match=r"image of datapoint 0 must be numbers in \(height, width\) or .*, got int64\(3,\); index="
    ):
        image_statistics([[np.arange(3)]])
    with pytest.raises(ValueError, match="there are no images"):
        image_statistics([])
    with pytest.raises(ValueError, match="per must be 'channel' or 'pixel', got 'row'"):
        image_statistics([], per="row")


def test_published_ones_are_in_the_scale_of_pixels():
    assert np.allclose(np.array(IMAGENET_STATISTICS.mean) / 255, [0.485, 0.456, 0.406])
    assert np.allclose(np.array(IMAGENET_STATISTICS.std) / 255, [0.229, 0.224, 0.225])


def test_every_public_name_is_there_and_documented():
    assert sorted(flowfn.datasets.__all__) == sorted(set(flowfn.datasets.__all__))
    for name in flowfn.datasets.__all__:
        value = getattr(flowfn.datasets, name)
        assert not callable(value) or value.__doc__


def test_the_package_needs_no_optional_library_to_be_imported(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("flowfn.datasets")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("cv2", "scipy", "h5py"):
        monkeypatch.setitem(sys.modules, name, None)
    import flowfn.datasets as again

    assert again.mnist.__name__ == "mnist"


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "digitStruct.mat").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'needs h5py, which is not installed: pip install "flowfn\[datasets\]"'):
        flowfn.datasets.svhn_numbers_files(tmp_path)
