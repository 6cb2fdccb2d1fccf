"""Feed a language model: three sources mixed by tokens, packed alike for all ranks, and a bad step gone round.

The texts ship with Python and NumPy: topics of the manual, modules of the standard library, docstrings. One more
is noise. Four ranks, all in this process, read a mixture by tokens that changes on the way, in
rows that cost nearly the same on every rank, and train a small model. At one step the loss jumps. It is asked
afterwards which records that step was made of, and the training goes on from a state saved before, on two ranks, and
without the step: every other row is what it was, to the last bit. At the end stand the accounting and a picture.

    pip install "flowfn[examples]"
    python examples/language.py
"""

import argparse
import inspect
import json
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

import flowfn as ff
from flowfn import formats

try:
    import cv2
except ImportError as error:
    raise SystemExit(f'This example needs {error.name}: pip install "flowfn[examples]" brings it.') from error

LENGTH, ROWS = 1024, 8
"""Tokens in a row, and rows in a step of all ranks."""
SAVE_EVERY = 5
"""Steps between two checkpoints."""
SOURCES = ("manual", "code", "docs")


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_corpus(Path(folder))
        run(Path(folder), options)


def run(folder: Path, options: argparse.Namespace) -> None:
    """Train on 4 ranks, find the worst step, and go on without it on 2."""
    first = Training(folder, options.steps, world=4)
    first.run()
    bad = first.worst_step()
    print(f"step {bad}: the loss jumps from {first.losses[bad - 1]:.2f} to {first.losses[bad]:.2f} bits a byte")

    checkpoint = max(step for step in first.checkpoints if step < bad)
    state, model = first.checkpoints[checkpoint]
    records = ff.origins(first.flows[0], bad, epoch=0, ranks="all", state=json.loads(state))
    for record in records:
        bits = first.surprise(folder, record)
        print(f"  rank {record.rank} read {record.source}[{record.index}]: {bits:.2f} bits a byte")

    second = Training(folder, options.steps, world=2)
    second.go_on(json.loads(state), model, without=bad)
    second.run()
    print(f"went on behind step {checkpoint} on 2 ranks, without step {bad}, up to step {max(second.losses)}")
    left_out = set(range(bad * ROWS, bad * ROWS + ROWS))
    due = {row: digest for row, digest in first.rows.items() if row >= min(second.rows) and row not in left_out}
    if second.rows != due:
        raise SystemExit("some rows are others than they were")
    print(f"all other {len(due)} rows are what they were, to the last bit")

    print_accounting(second)
    planned, first_come = (
        ff.balance(rows(folder, options.steps, how), options.steps, ranks=4, cost=attention)
        for how in (None, ff.first_fit)
    )
    print(planned)
    write_picture(options.picture, pictured(first, second, bad, planned.imbalance, first_come.imbalance))
    print(f"drawn: {options.picture.resolve()}")


# The texts


def write_corpus(folder: Path) -> None:
    """A file of JSON lines for each source, and a text among the docstrings that is none."""
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = {
        "manual": list(topics.values()),
        "code": [module.read_text("utf-8", errors="replace") for module in modules],
        "docs": [text for name in dir(np) if (text := inspect.getdoc(getattr(np, name)))],
    }
    noise = np.random.default_rng(0).integers(32, 127, LENGTH, np.uint8).tobytes().decode()
    texts["docs"].insert(len(texts["docs"]) // 5, noise)
    for name, some in texts.items():
        formats.write_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in some])
        print(f"{name:>7}: {len(some)} texts, {sum(len(text.encode()) for text in some):,} bytes")


def as_tokens(record: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The bytes of a text, uint8 (n,): as many tokens as there are."""
    return {"tokens": np.frombuffer(record["text"].encode(), np.uint8)}


# The pipeline


def attention(lengths: np.ndarray) -> np.ndarray:
    """What sequences cost a transformer: a part that grows with their length, and one with its square."""
    return lengths + lengths**2 / LENGTH


def sources(folder: Path) -> dict[str, ff.Flow]:
    """Sequences of at most LENGTH tokens of each source, nearly in the order of its file, a new one in every epoch."""
    return {
        name: ff.pipe(
            formats.read_jsonl(folder / f"{name}.jsonl"),
            ff.shuffle(window=64),
            ff.map(as_tokens),
            ff.flat_map(ff.split_long(LENGTH)),
        )
        for name in SOURCES
    }


def rows(folder: Path, steps: int, how: Callable | None = None) -> ff.Flow:
    """Rows of tokens for all ranks: much of the docstrings at first, more and more of the manual from the middle on."""
    middle = steps * ROWS * LENGTH // 2
    schedule = ff.phases(
        {
            0: {"manual": 0.1, "code": 0.3, "docs": 0.6},
            middle: {"manual": 0.5, "code": 0.4, "docs": 0.1},
        },
        ramp=middle // 2,
    )
    planned = partial(ff.balanced_fit, ranks=4, rows=ROWS // 4, cost=attention, window=256)
    return ff.pipe(
        ff.mix(sources(folder), weights=schedule, unit="tokens", until="forever", tag="source"),
        ff.pack(LENGTH, how=how or planned, keep="source"),
    )


def pipeline(folder: Path, steps: int, rank: int, world: int) -> ff.Flow:
    """What one rank reads: its rows of each step. The plan is for 4 ranks; they may be shared out to any number."""
    return ff.pipe(rows(folder, steps), ff.shard(rank, world), ff.batch(ROWS // world))


# The training


class Bigrams:
    """How often each byte came behind each other one: a model that learns at once, and can be surprised."""

    def __init__(self, counts: np.ndarray | None = None) -> None:
        self.counts = np.full((256, 256), 0.02) if counts is None else counts.copy()

    def surprise(self, pairs: np.ndarray) -> float:
        """How unlikely the second byte of each pair is behind the first, (n, 2), in bits, in the mean."""
        before, after = pairs.T
        return float(-np.log2(self.counts[before, after] / self.counts.sum(1)[before]).mean())

    def learn(self, pairs: np.ndarray) -> None:
        np.add.at(self.counts, tuple(pairs.T), 1)


def pairs_of(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Each byte and the one behind it, (n, 2), within their segment: nobody looks into what stands beside."""
    ids = batch["segment_ids"]
    inside = (ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] > 0)
    return np.stack([batch["tokens"][:, :-1][inside], batch["tokens"][:, 1:][inside]], axis=1)


class Training:
    """A training on so many ranks, all in this process, and what was seen of it: by step the loss and the tokens of
    each source, by row a digest; every few steps the state of rank 0, and what the model has learned."""

    def __init__(self, folder: Path, steps: int, world: int) -> None:
        self.steps, self.world, self.model = steps, world, Bigrams()
        self.flows = [pipeline(folder, steps, rank, world) for rank in range(world)]
        self.losses: dict[int, float] = {}
        self.checkpoints: dict[int, tuple[str, np.ndarray]] = {}
        self.tokens: dict[int, dict[str, int]] = {}
        self.rows: dict[int, str] = {}

    def go_on(self, state: Mapping, counts: np.ndarray, without: int) -> None:
        """Go on from a checkpoint, without a step. Batches have another size now, which `strict=False` allows."""
        self.model = Bigrams(counts)
        for flow in self.flows:
            flow.load_state_dict(state, strict=False, skip=[without])

    def run(self) -> None:
        """Read and learn, step by step, up to the last."""
        self.ranks = [iter(flow) for flow in self.flows]
        while self.ranks[0].position < self.steps:
            batches = [next(rank) for rank in self.ranks]
            self.see(self.ranks[0].position - 1, batches)

    def see(self, step: int, batches: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Learn a step, and note what it was."""
        pairs = np.concatenate([pairs_of(batch) for batch in batches])
        self.losses[step] = self.model.surprise(pairs)
        self.model.learn(pairs)
        if step % SAVE_EVERY == 0:  # any rank's state will do, on any number of ranks
            self.checkpoints[step] = json.dumps(self.ranks[0].state_dict()), self.model.counts.copy()
        self.tokens[step] = tokens_by_source(batches)
        for rank, batch in enumerate(batches):
            for place, digest in enumerate(digests(batch)):
                self.rows[step * ROWS + rank + self.world * place] = digest

    def worst_step(self) -> int:
        """The step at which the loss is furthest above that of the steps around it."""
        losses = np.array(list(self.losses.values()))
        usual = np.array([np.median(losses[max(step - 8, 0) : step + 9]) for step in range(len(losses))])
        return int(np.argmax((losses - usual)[2 * SAVE_EVERY :])) + 2 * SAVE_EVERY

    def surprise(self, folder: Path, record: ff.Origin) -> float:
        """How much a record surprises the model, by itself."""
        tokens = as_tokens(formats.read_jsonl(folder / f"{record.source}.jsonl")[record.index])["tokens"]
        return self.model.surprise(np.stack([tokens[:-1], tokens[1:]], axis=1))


def digests(batch: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A digest of each row: of its tokens, its segments, its positions and where they came from."""
    for *arrays, names in zip(batch["tokens"], batch["segment_ids"], batch["positions"], batch["source"]):
        yield blake2b(b"".join(array.tobytes() for array in arrays) + repr(names).encode(), digest_size=8).hexdigest()


def tokens_by_source(batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, int]:
    """How many tokens of each source are in the batches of a step."""
    counts = dict.fromkeys(SOURCES, 0)
    for batch in batches:
        for ids, names in zip(batch["segment_ids"], batch["source"]):
            for number, name in enumerate(names, 1):
                counts[name] += int((ids == number).sum())
    return counts


def print_accounting(training: Training) -> None:
    """What the mix was to give of each source, and has given, in tokens; some still wait to be packed."""
    for name, quota in ff.quotas(training.ranks[-1]).items():
        print(f"{name:>7}: {quota.delivered:9,} tokens given, {quota.expected:11,.1f} were due")


# The picture

WIDTH, HEIGHT, MARGIN = 900, 200, 46
COLORS = {
    "manual": (60, 120, 220),
    "code": (230, 140, 40),
    "docs": (70, 160, 80),
    "old": (170, 170, 170),
    "new": (200, 60, 60),
}


def pictured(first: Training, second: Training, bad: int, planned: np.ndarray, first_come: np.ndarray) -> np.ndarray:
    """Three panels, one below the other, RGB."""
    shares = {name: moving([step[name] / sum(step.values()) for step in first.tokens.values()]) for name in SOURCES}
    return np.vstack(
        [
            panel(
                f"bits a byte on 4 ranks, and on 2 from before step {bad}, without it",
                {"old": first.losses, "new": second.losses},
            ),
            panel(
                "tokens of each source: shares, mean of 9 steps",
                {name: dict(enumerate(some)) for name, some in shares.items()},
            ),
            panel(
                "cost of the rank that has most, over the mean: planned, and as first_fit packs",
                {"old": dict(enumerate(first_come)), "new": dict(enumerate(planned))},
            ),
        ]
    )


def moving(values: Sequence[float]) -> np.ndarray:
    """The mean of each value and its neighbours."""
    padded = np.pad(np.asarray(values), 4, mode="edge")
    return np.convolve(padded, np.full(9, 1 / 9), mode="valid")


def panel(title: str, series: Mapping[str, Mapping[int, float]]) -> np.ndarray:
    """Lines over steps, each in its colour, with what they are called and the lowest and highest value."""
    made = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    every = np.array([value for line in series.values() for step, value in line.items() if step])
    low, high, steps = every.min(), every.max(), max(max(line) for line in series.values())
    for name, line in series.items():
        points = [
            (
                MARGIN + (WIDTH - 2 * MARGIN) * step / steps,
                HEIGHT - MARGIN // 2 - (HEIGHT - MARGIN) * (min(value, high) - low) / (high - low),
            )
            for step, value in line.items()
        ]
        cv2.polylines(made, [np.round(points).astype(np.int32)], False, COLORS[name], 2, cv2.LINE_AA)
    write(made, title, (MARGIN, 14))
    write(made, f"{high:.2f}", (4, MARGIN // 2 + 4))
    write(made, f"{low:.2f}", (4, HEIGHT - MARGIN // 2))
    for place, name in enumerate(name for name in series if name in SOURCES):
        write(made, name, (WIDTH - MARGIN - 70 * (place + 1), 14), COLORS[name])
    return made


def write(picture: np.ndarray, words: str, place: tuple[int, int], color: tuple[int, int, int] = (0, 0, 0)) -> None:
    cv2.putText(picture, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write an RGB picture in the format that the name says."""
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):  # a full disk is reported in no other way
        raise OSError(f"cannot write {path}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--steps", type=int, default=120, help="how long to train (default: %(default)s)")
    add("--picture", type=Path, default=Path("language.png"), help="where to draw (default: %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
