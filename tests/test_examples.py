"""Every example runs in a small setting and says what it promises to say."""

import importlib
import os
import re
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest

from flowfn import image

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder: Path, name: str, *options: str, warnings: str = "error", timeout: int = 100) -> str:
    """What an example prints, run in `folder` with warnings as errors."""
    command = [sys.executable, "-W", warnings, str(EXAMPLES / name), *options]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.long
def test_quickstart_reads_photographs_and_writes_a_contact_sheet(tmp_path):
    output = run(
        tmp_path,
        "quickstart.py",
        "--images",
        "150",
        "--folder",
        "photographs",
        "--sheet",
        "sheet.png",
        "--processes",
        "2",
    )
    assert "150 photographs in " in output
    assert "first batch: images uint8 (128, 225, 225, 3), labels int64 (128,)" in output
    assert output.count(" images per second") == 2
    assert str(tmp_path / "sheet.png") in output
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (8 * 72, 16 * 72, 3)


@pytest.mark.long
def test_quickstart_keeps_the_colours(tmp_path):
    run(tmp_path, "quickstart.py", "--images", "20", "--folder", ".", "--processes", "1")
    blue, _, red = cv2.imread(str(tmp_path / "contact_sheet.png"))[:144, : 10 * 72].reshape(-1, 3).astype(int).T
    orange = red - blue > 100  # the dahlia, which would be blue if red and blue were exchanged
    assert orange.mean() > 0.05
    assert (blue - red > 100).mean() < 0.01


@pytest.mark.long
def test_quickstart_cuts_the_photographs_once(tmp_path):
    options = ("--images", "10", "--folder", ".", "--processes", "1")
    run(tmp_path, "quickstart.py", *options)
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert len(written) == 10
    run(tmp_path, "quickstart.py", *options)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == written


def test_quickstart_takes_no_unfinished_folder_for_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    quickstart = importlib.import_module("quickstart")
    written = []

    def interrupted(path, image):
        written.append(path)
        if len(written) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(quickstart, "write_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quickstart.cut_photographs(tmp_path, 10)
    assert list(tmp_path.iterdir()) == []
    assert len(quickstart.list_files(quickstart.cut_photographs(tmp_path, 10))) == 10


@pytest.mark.parametrize(
    ("name", "missing", "install"),
    [
        ("quickstart.py", "cv2", '"flowfn[examples]"'),
        ("quickstart.py", "tqdm", '"flowfn[examples]"'),
        ("digits.py", "sklearn", '"flowfn[examples]"'),
        ("mnist.py", "sklearn", '"flowfn[examples]"'),
        ("imagenet.py", "cv2", '"flowfn[examples]"'),
        ("imagenet.py", "lmdb", '"flowfn[examples]"'),
        ("segmentation.py", "cv2", '"flowfn[examples]"'),
        ("augmentors.py", "cv2", '"flowfn[examples]"'),
        ("torch_training.py", "torch", '"flowfn[examples,torch]"'),
        ("lightning_training.py", "lightning", '"flowfn[examples,torch]" lightning'),
        ("ray_cluster.py", "ray", '"flowfn[ray]"'),
        ("dask_cluster.py", "distributed", '"flowfn[dask]"'),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(name, missing, install, monkeypatch):
    for loaded in [one for one in sys.modules if one.partition(".")[0] == missing]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        SystemExit, match=rf"^This example needs {missing}\b.*: pip install {re.escape(install)} brings it\.$"
    ):
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_digits_learns_and_resumes_to_the_last_bit(tmp_path):
    output = run(tmp_path, "digits.py", "--epochs", "10")
    assert "stopped after 22 of the 45 batches of epoch 5" in output
    assert "bit-identical" in output
    (accuracy,) = (float(line.rpartition(" ")[2]) for line in output.splitlines() if line.startswith("test accuracy: "))
    assert accuracy >= 0.93


@pytest.mark.timeout(180)
def test_keras_training_is_killed_and_resumes_to_the_last_bit(tmp_path):
    """Without warnings as errors: importing TensorFlow warns."""
    if not (find_spec("keras") and find_spec("tensorflow")):
        pytest.skip("keras or tensorflow is not installed")
    command = [sys.executable, str(EXAMPLES / "keras_training.py"), "--epochs", "3"]
    settings = {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
        command, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, timeout=170
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "killed behind batch 67 of 135: exit status -9" in finished.stdout
    assert "bit-identical" in finished.stdout


@pytest.mark.long
@pytest.mark.timeout(300)
def test_torch_training_is_killed_and_resumes_to_the_last_bit_with_other_workers(tmp_path):
    if not find_spec("torch"):
        pytest.skip("torch is not installed")
    output = run(tmp_path, "torch_training.py", "--epochs", "4", timeout=290)
    assert "killed behind batch 112 of 180" in output
    assert "resumed behind batch 110, with 3 workers" in output
    assert "bit-identical" in output
    assert "test accuracy: 0.9" in output


@pytest.mark.long
@pytest.mark.timeout(300)
def test_lightning_training_is_killed_and_resumes_to_the_last_bit_with_other_workers(tmp_path):
    """Without warnings as errors: Lightning may warn of the libraries that it imports."""
    if not find_spec("lightning"):
        pytest.skip("lightning is not installed")
    output = run(tmp_path, "lightning_training.py", "--epochs", "4", warnings="default", timeout=290)
    assert "killed behind batch 112 of 180" in output
    assert "resumed from step=110.ckpt, with 3 workers" in output
    assert "bit-identical" in output
    assert "test accuracy: 0.9" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "library"), [("ray_cluster.py", "ray"), ("dask_cluster.py", "distributed")])
def test_a_cluster_whose_worker_is_killed_gives_what_one_process_makes(name, library, tmp_path):
    """Without warnings as errors: Ray warns of what it will do, Dask of sockets that are closed late."""
    if not find_spec(library):
        pytest.skip(f"{library} is not installed")
    output = run(tmp_path, name, "--images", "200", warnings="ignore")
    assert "2 at a time" in output
    assert output.count("25 batches, bit-identical to those of one process") == 2
    assert "killed behind batch 12 of epoch 1" in output
    assert "gives the 12 batches left, without a cluster" in output


def test_language_goes_round_a_bad_step_on_other_ranks(tmp_path):
    output = run(tmp_path, "language.py", "--steps", "80", warnings="default")
    (bad,) = re.findall(r"^step (\d+): the loss jumps from 3\.\d\d to [45]\.\d\d bits a byte$", output, re.MULTILINE)
    surprises = [
        float(bits) for bits in re.findall(r"^  rank \d read \w+\[\d+\]: (.*) bits a byte$", output, re.MULTILINE)
    ]
    assert sorted(surprises)[-1] > 8 > 5 > sorted(surprises)[-2]  # of noise, and of any text
    assert f"on 2 ranks, without step {bad}, up to step 79" in output
    assert "rows are what they were, to the last bit" in output
    quotas = re.findall(r"^ *(\w+): +([\d,]+) tokens given, +([\d,.]+) were due$", output, re.MULTILINE)
    assert [name for name, *_ in quotas] == ["manual", "code", "docs"]
    assert all(abs(float(one.replace(",", "")) - float(due.replace(",", ""))) <= 1024 for _, one, due in quotas)
    assert "balance of 80 steps on 4 ranks" in output
    assert cv2.imread(str(tmp_path / "language.png")).std() > 20


def test_fill_in_tasks_keep_every_law(tmp_path):
    output = run(tmp_path, "language_tasks.py")
    assert all(word in output for word in ("epoch 1", "<prefix>", "<middle>", "<0>", "both pipelines keep every law"))


def test_two_trainings_have_one_loader(tmp_path):
    output = run(tmp_path, "serving.py")
    first, second = re.findall(r"training had 8 batches, which sum up to (\d+)", output)
    assert first == second


def test_own_stage_keeps_every_law(tmp_path):
    assert "the pipeline keeps every law" in run(tmp_path, "own_stage.py")


@pytest.mark.long
@pytest.mark.timeout(180)
def test_mnist_reads_its_own_files_and_learns(tmp_path):
    output = run(tmp_path, "mnist.py", "--epochs", "3")
    assert "1437 digits to train on, 360 to test on" in output
    assert "a batch: images (64, 8, 8) uint8, labels (64,) int64" in output
    assert float(output.split()[-1]) >= 0.9


@pytest.mark.long
@pytest.mark.timeout(180)
def test_imagenet_feeds_training_and_validation_from_files_and_from_one_file(tmp_path):
    output = run(tmp_path, "imagenet.py", "--images", "150", "--folder", ".", "--processes", "2")
    assert "150 photographs to train on and 30 to validate with" in output
    assert output.count("images uint8 (64, 224, 224, 3), labels int64 (64,); 128 images an epoch") == 2
    assert "train, from LMDB: " in output
    assert "validation, from files: images uint8 (30, 224, 224, 3), labels int64 (30,); 30 images an epoch" in output
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    flower = cv2.imread(str(next(folder.glob("train/n11939491/*.JPEG")))).reshape(-1, 3).astype(int)
    assert (
        flower[:, 2] - flower[:, 0] > 100
    ).mean() > 0.05  # orange, which would be blue if red and blue were exchanged

    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    output = run(tmp_path, "imagenet.py", "--data", str(folder), "--processes", "1")
    assert "150 photographs to train on and 30 to validate with" in output
    assert "name a file to write and read with --lmdb" in output
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written


@pytest.mark.long
def test_segmentation_moves_image_mask_and_points_together(tmp_path):
    options = ("--images", "6", "--columns", "3")
    output = run(tmp_path, "segmentation.py", *options)
    assert "a batch: image uint8 (6, 192, 192, 3), mask uint8 (6, 192, 192), points float64 (6, 5, 2)" in output
    ((seen, kept),) = re.findall(
        r"(\d+) points of the outline can be seen, (\d+) of them are on the outline of the augmented mask", output
    )
    assert int(seen) == int(kept) >= 12
    assert "boxes can be seen, at least a fifth of each" in output
    picture = cv2.imread(str(tmp_path / "segmentation.png"))
    assert picture.shape == (2 * 192, 3 * 192, 3)
    assert (picture == (0, 220, 0)).all(2).sum() > 6 * 100  # the boxes are green
    assert (picture == (255, 160, 0)).all(2).sum() > 12 * 15  # the points are blue
    run(tmp_path, "segmentation.py", *options, "--processes", "2", "--picture", "again.png")
    assert (cv2.imread(str(tmp_path / "again.png")) == picture).all()


@pytest.mark.long
def test_augmentors_are_all_on_one_sheet(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    module = importlib.import_module("augmentors")
    shown = module.AUGMENTORS
    assert all(len(module.lines(module.PRESETS.get(one, repr(one)), 38)) <= 2 for one in shown)  # captions fit
    public = [getattr(image, name) for name in image.__all__]
    augmentors = {one for one in public if isinstance(one, type) and issubclass(one, image.Augmentor)} - {
        image.Augmentor
    }
    assert {type(one) for one in shown} == augmentors
    assert f"{len(shown)} augmentors: {tmp_path / 'sheet.png'}" in run(
        tmp_path, "augmentors.py", "--columns", "6", "--sheet", "sheet.png"
    )
    sheet = cv2.imread(str(tmp_path / "sheet.png")).astype(int)
    assert sheet.shape == (6 + -(-len(shown) // 6) * 184, 6 + 6 * 222, 3)
    sky = sheet[6:26, 6:222].reshape(-1, 3).mean(0)
    assert sky[0] > sky[2] + 20  # blue above red, as the sky is
