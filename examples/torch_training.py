"""Train a network of PyTorch on scanned digits, kill the process in an epoch, and end with the very same weights.

A small convolutional network with dropout learns scikit-learn's 1797 digits from batches that are shuffled and
augmented anew in each epoch, made in worker processes, and copied to the GPU ahead of time if there is one. It is
trained from beginning to end, and again in another process, which is killed without warning in the middle of an epoch.
A third one, with another number of workers, goes on from the newest checkpoint, which holds the weights, the optimizer,
torch's random numbers and where the flow stands. Then the weights of both trainings are equal to the last bit.

    pip install "flowfn[examples,torch]"
    python examples/torch_training.py
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.image import normalize
from flowfn.interop import to_device, to_torch

try:
    import torch
    from sklearn.datasets import load_digits
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples,torch]" brings it.') from error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SAVED_EVERY = 10
NORMALIZE = normalize(4.9, 6.0)  # the mean of the digits' pixels, which are 0 to 16, and their standard deviation
REQUIRED_ACCURACY = 0.9


def main(options: argparse.Namespace) -> None:
    train_digits, test_digits = split_digits()
    epoch = len(pipeline(train_digits))
    killed_at = options.epochs // 2 * epoch + epoch // 2
    print(f"{len(train_digits)} digits to train on, {len(test_digits)} to test on, on {DEVICE}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        whole, resumed = Path(folder) / "whole.pt", Path(folder) / "resumed.pt"
        train(whole, options.epochs, processes=2)
        print("trained without an interruption, with 2 workers", flush=True)
        train_in_a_process(resumed, options.epochs, processes=2, kill_at=killed_at)
        print(f"trained again, and killed behind batch {killed_at} of {options.epochs * epoch}", flush=True)
        train_in_a_process(resumed, options.epochs, processes=3)
        compare(torch.load(whole, "cpu")["network"], torch.load(resumed, "cpu")["network"], test_digits)


def train_in_a_process(checkpoint: Path, epochs: int, processes: int, kill_at: int = 0) -> None:
    """Train in a new process, as this program with `--checkpoint` does, and see that it ends as it should."""
    command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--epochs", str(epochs)]
    command += ["--processes", str(processes), "--kill-at", str(kill_at)]
    quiet = os.environ | {"PYTHONWARNINGS": "ignore:resource_tracker"}  # it clears away what a killed process leaves
    status = subprocess.run(command, env=quiet, timeout=600).returncode
    if status != (-signal.SIGKILL if kill_at else 0):
        raise SystemExit(f"the process that trains ended with status {status}")


def train(checkpoint: Path, epochs: int, processes: int, kill_at: int = 0) -> None:
    """Train up to the end of the last epoch, from the beginning or from a checkpoint that is there."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it a GPU may compute something else each time
    torch.use_deterministic_algorithms(True)

    network = build_network().to(DEVICE)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    batches = pipeline(split_digits()[0], processes)
    if checkpoint.exists():
        load(checkpoint, network, optimizer, batches)
        done = batches.epoch * len(batches) + batches.state_dict()["position"]
        print(f"resumed behind batch {done}, with {processes} workers", flush=True)

    for number, (images, labels) in enumerate(training(batches, epochs), 1):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if number % SAVED_EVERY == 0:
            save(checkpoint, network, optimizer, batches)
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    save(checkpoint, network, optimizer, batches)


def split_digits() -> list[ff.Flow]:
    """The digits as [image (8, 8, 1), label] for training and testing: the same split in every epoch and process."""
    digits = load_digits()
    return ff.split(ff.from_arrays(digits.images[..., None].astype(np.float32), digits.target), 0.8, 0.2)


def pipeline(train: ff.Flow, processes: int = 2) -> ff.Flow:
    """Batches on the device, made in worker processes, the number of which changes nothing of them."""
    return ff.pipe(
        train,
        ff.shuffle(),
        ff.map_component(augment, 0, rng=True),
        ff.batch(32),
        ff.map_component(NORMALIZE, 0),
        ff.prefetch(4, processes=processes),
        to_torch(),
        to_device(DEVICE),
    )


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shift an image by a pixel at most, and add a little noise."""
    down, right = rng.integers(3, size=2)
    shifted = np.pad(image, [(1, 1), (1, 1), (0, 0)])[down : down + 8, right : right + 8]
    return shifted + rng.normal(scale=0.3, size=image.shape).astype(np.float32)


def training(batches: ff.Flow, epochs: int) -> Iterator[list[torch.Tensor]]:
    """The batches from where the flow stands to the end of the last epoch."""
    for _ in range(batches.epoch, epochs):
        yield from batches


def build_network() -> torch.nn.Module:
    """Two convolutions and a linear layer: images [n, 1, 8, 8] become scores [n, 10]."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Dropout(0.3),
        torch.nn.Linear(32 * 4 * 4, 10),
    )


def save(path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: ff.Flow) -> None:
    """Write all that training depends on, in a new file that takes the place of the old one when it is whole."""
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": [torch.get_rng_state(), *torch.cuda.get_rng_state_all()],  # dropout draws from it
        "batches": batches.state_dict(),
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def load(path: Path, network: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: ff.Flow) -> None:
    """Let network, optimizer, torch's random numbers and the flow go on from a checkpoint."""
    state = torch.load(path, "cpu")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    batches.load_state_dict(state["batches"])
    on_cpu, *on_gpus = state["random"]
    torch.set_rng_state(on_cpu)
    torch.cuda.set_rng_state_all(on_gpus)


def compare(whole: dict[str, torch.Tensor], resumed: dict[str, torch.Tensor], test: ff.Flow) -> None:
    if any(bits(whole[name]) != bits(resumed[name]) for name in whole):
        raise SystemExit("the resumed training ended with other weights than the uninterrupted one")
    print("the weights after the resumed and the uninterrupted training are bit-identical")

    network = build_network()
    network.load_state_dict(resumed)
    reached = accuracy(network.eval(), test)
    print(f"test accuracy: {reached:.3f}")
    if reached < REQUIRED_ACCURACY:
        raise SystemExit(f"the test accuracy is below {REQUIRED_ACCURACY}")


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()


def accuracy(network: torch.nn.Module, test: ff.Flow) -> float:
    """The share of the test images whose digit has the highest score."""
    images, labels = ff.pipe(test, ff.batch(len(test)), ff.map_component(NORMALIZE, 0), to_torch())[0]
    return float((network(images).argmax(1) == labels).float().mean())


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--epochs", type=int, default=10, help="how often to go through the training digits (default: %(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, help="train once in this process, and save it to this file")
    parser.add_argument("--processes", type=int, default=2, help="how many workers make batches (default: %(default)s)")
    parser.add_argument("--kill-at", type=int, default=0, help="kill this process behind so many batches")
    return parser.parse_args()


if __name__ == "__main__":
    options = parse_options()
    if options.checkpoint:
        train(options.checkpoint, options.epochs, options.processes, options.kill_at)
    else:
        main(options)
