"""Every example runs in a small setting and says what it promises to say."""

import importlib
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder: Path, name: str, *options: str) -> str:
    """What an example prints, run in `folder` with warnings as errors."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *options]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def test_quickstart_reads_photographs_and_writes_a_contact_sheet(tmp_path):
    output = run(tmp_path, "quickstart.py", "--images", "150", "--folder", "photographs", "--sheet", "sheet.png", "--processes", "2")
    assert "150 photographs in " in output
    assert "first batch: images uint8 (128, 225, 225, 3), labels int64 (128,)" in output
    assert output.count(" images per second") == 2
    assert str(tmp_path / "sheet.png") in output
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (8 * 72, 16 * 72, 3)


def test_quickstart_keeps_the_colours(tmp_path):
    run(tmp_path, "quickstart.py", "--images", "20", "--folder", ".", "--processes", "1")
    blue, _, red = cv2.imread(str(tmp_path / "contact_sheet.png"))[:144, : 10 * 72].reshape(-1, 3).astype(int).T
    orange = red - blue > 100  # the dahlia, which would be blue if red and blue were exchanged
    assert orange.mean() > 0.05
    assert (blue - red > 100).mean() < 0.01


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


@pytest.mark.parametrize(("name", "missing"), [("quickstart.py", "cv2"), ("quickstart.py", "tqdm"), ("digits.py", "sklearn")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(name, missing):
    hide = f"import runpy, sys; sys.modules[{missing!r}] = None; runpy.run_path({str(EXAMPLES / name)!r}, run_name='__main__')"
    finished = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=60)
    assert finished.returncode != 0
    assert f"This example needs {missing}" in finished.stderr
    assert 'pip install "flowfn[examples]"' in finished.stderr


def test_digits_learns_and_resumes_to_the_last_bit(tmp_path):
    output = run(tmp_path, "digits.py", "--epochs", "10")
    assert "stopped after 22 of the 45 batches of epoch 5" in output
    assert "bit-identical" in output
    (accuracy,) = (float(line.rpartition(" ")[2]) for line in output.splitlines() if line.startswith("test accuracy: "))
    assert accuracy >= 0.93


def test_own_stage_keeps_every_law(tmp_path):
    assert "the pipeline keeps every law" in run(tmp_path, "own_stage.py")
