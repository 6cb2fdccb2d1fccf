"""Flows in Keras, on each of its backends: one process is killed, and the next does all that is asked, since a backend
cannot be changed within one."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from forking import compiled_in

if find_spec("keras") is None:
    pytest.skip("keras is not installed", allow_module_level=True)

PROGRAM = Path(__file__).with_name("training_with_keras.py")
ORDERS = [
    "epochs_follow",
    "shuffle_of_fit",
    "other_data_sets",
    "evaluating_on_it",
    "parts_of_a_pass",
    "whole_passes_by_steps",
    "of_unknown_length",
    "one_batch",
    "stopped",
    "epoch_set",
    "loaded",
    "prefetched",
]
RESULTS = [
    *ORDERS,
    "refused",
    "forms",
    "whole",
    "whole_uncounted",
    "by_hand",
    "by_its_own_steps",
    "hooks",
    "own_backup",
    "resumed",
]

pytestmark = pytest.mark.timeout(480)


@pytest.fixture(scope="module", params=["tensorflow", "torch", "jax"])
def backend(request):
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


@pytest.fixture(scope="module")
def seen(backend, tmp_path_factory):
    """What came of all that is asked of Keras in one process, behind one that was killed while it trained."""
    folder = tmp_path_factory.mktemp(backend)
    settings = {"FOLDER": str(folder / "backup"), **compiled_in(folder / "compiled")}
    killed = run(backend, "killed", **settings)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    return told(run(backend, *RESULTS, **settings))


def run(backend, *names, **settings):
    settings |= {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, str(PROGRAM), *names]
    return subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, timeout=240)


def told(finished):
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ORDERS)
def test_batches_come_as_the_flow_has_them(seen, name):
    """`training_with_keras.py` says in each function of that name what is read, and what should be."""
    assert seen[name]["seen"] == seen[name]["right"]


def test_training_is_that_of_a_loop_of_ones_own(seen):
    assert seen["by_hand"]["seen"] == seen["by_hand"]["right"]


@pytest.mark.resumes("Keras on tensorflow, torch and jax: `as_pydataset(flow)`", "a length", "in an epoch, at its end")
@pytest.mark.resumes(
    "Keras on tensorflow, torch and jax: `as_pydataset(flow)`",
    "no length, and `steps_per_epoch`",
    "at the end of an epoch",
)
def test_a_killed_training_goes_on_to_the_last_bit(seen):
    """Weights, those of the optimizer, the states of dropout, losses and metrics of the epochs."""
    resumed = seen["resumed"]
    for result in (resumed["batches"], resumed["epochs"]):
        assert result["weights"] == seen["whole"]["weights"]
        assert result["history"] == {name: values[1:] for name, values in seen["whole"]["history"].items()}
    uncounted, right = resumed["uncounted"], seen["whole_uncounted"]
    assert uncounted["weights"] == right["weights"]
    assert uncounted["history"] == {name: values[2:] for name, values in right["history"].items()}
    assert not resumed["left"]


def test_an_interrupted_training_goes_on_where_keras_is_told_the_steps(seen):
    assert seen["by_its_own_steps"]["seen"] == seen["by_its_own_steps"]["right"]


def test_batches_may_have_any_form_that_keras_takes(seen):
    forms = seen["forms"]
    assert forms["lists"] == forms["tuples"] == forms["dicts"]
    assert forms["weights"] == forms["class weights"] != forms["lists"]


@pytest.mark.resumes(
    "Keras on tensorflow, torch and jax: `as_pydataset(flow)`",
    "no length",
    "in an epoch",
    outcome="refused, by an error",
)
def test_what_cannot_be_is_said(seen):
    words = seen["refused"]
    assert words["flow"].startswith("ValueError: Unrecognized data type")
    assert "write prefetch(4, processes=3)" in words["workers"]
    assert "gives no batch" in words["empty"]
    assert "leaves out some of its data (skip=), but Keras goes by numbers" in words["gaps"]
    assert 'write save_freq="epoch"' in words["unknown"]
    assert 'save_freq must be "epoch" or a positive integer, got 0' in words["frequency"]
    assert "LookupError" in words["failing"]
    assert "there is no " in words["failing"]
    assert words["index"].startswith("IndexError")


def test_keras_reads_a_data_set_before_it_trains_and_tells_it_that_an_epoch_ended(backend, seen):
    """Keras 3.15.1 (`epoch_iterator.py`, `py_dataset_adapter.py`, the trainers): `on_epoch_end` comes once more than there
    are epochs, first of all, and `on_epoch_begin` too where the model's losses are not built yet (jax, torch), with the
    first batch; on TensorFlow two batches are read before anything for their shapes. Between fit and evaluate there is no
    difference, and predict does not begin with an end. `workers` is asked for when the adapter is made, once."""
    first = "A01" if backend == "tensorflow" else "A"
    assert seen["hooks"] == {
        "first fit": first + ("" if backend == "tensorflow" else "B0") + "E" + 2 * "B01E",
        "second fit": first + "E" + "B01E",
        "evaluate": first + "E" + "B01E",
        "predict": first + "B01E",
    }


def test_keras_own_backup_restores_neither_the_batch_nor_dropout_nor_the_epoch_to_be_saved_next(backend, seen):
    """Keras 3.15.1 (`backup_and_restore.py`): training_metadata.json says which batch it was, and nothing reads that: the
    epoch begins anew with weights that have seen a part of it. The states of dropout's random numbers are no weights, so
    they start at the seed (on torch, layers without a seed draw from torch's own generator, whose state nobody saves). And the epoch that is written until the first one has ended is 0, whichever was restored."""
    backup = seen["own_backup"]
    at_first, when_stopped, restored, _ = backup["states"]
    assert at_first == restored
    assert (restored == when_stopped) == (backend == "torch")
    assert backup["epochs"] == [0, 1, 1]
    assert [one["epoch"] for one in backup["saved"]] == [1, 0]
