"""Write a source and two stages of your own, and test them.

A stage is a generator function over its source plus one word, its kind. The word says how outputs come from inputs, and
from it follow resume, sharding and parallel execution, for your stages as for the library's. One tests a stage by
itself on a list, as any generator function, and then lets `flowfn.testing.check` try the whole pipeline against every
law.

    pip install flowfn
    python examples/own_stage.py
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import flowfn as ff
from flowfn.testing import check

VERSES = """\
Tell me not, in mournful numbers,
Life is but an empty dream!
For the soul is dead that slumbers,
And things are not what they seem."""


class Lines:
    """The lines of a text file, as a source.

    Its `reset_state` makes it a source in DataFlow's style: the method is called once before the first pass, and the
    object stays in the process that iterates, even if the stages run in others. What cannot be sent to another process,
    such as an open database, can therefore be opened there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def reset_state(self) -> None:
        """Read the file."""
        self.lines = self.path.read_text().splitlines()

    def __iter__(self) -> Iterator[str]:
        """The lines, from the first on; each pass calls it anew."""
        return iter(self.lines)

    def __len__(self) -> int:
        """How many lines there are; it may be asked for before `reset_state` is called."""
        return len(self.path.read_text().splitlines())


@ff.stage.expand
def words(minimum_length: int, source: Iterator[str]) -> Iterator[str]:
    """The words of every line that are long enough: none, one or several for each input, so the kind is `expand`."""
    for line in source:
        for word in line.split():
            letters = word.strip(",.!").lower()
            if len(letters) >= minimum_length:
                yield letters


@ff.stage.each
def misspelled(probability: float, source: Iterator[str], *, rngs: Iterator[np.random.Generator]) -> Iterator[str]:
    """Swap two neighbouring letters of some words: one output for each input, so the kind is `each`.

    The stage asks for `rngs`, one generator for each input. A word is misspelled in the same way in whatever process it
    is handled, because its generator depends on nothing but the seed, the epoch and the word's place.
    """
    for word, rng in zip(source, rngs):
        if len(word) > 1 and rng.random() < probability:
            at = rng.integers(len(word) - 1)
            word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        yield word


def pipeline(path: Path) -> ff.Flow:
    """Batches of misspelled words."""
    return ff.pipe(Lines(path), words(3), misspelled(0.5), ff.batch(4))


def test_words_leaves_short_words_out() -> None:
    assert list(words(3, ["Tell me not,", "", "in numbers!"])) == ["tell", "not", "numbers"]


def test_misspelled_is_random_in_nothing_but_seed_and_epoch() -> None:
    assert list(misspelled(0.0, ["dream", "a"])) == ["dream", "a"]
    assert list(misspelled(1.0, ["at", "a"])) == ["ta", "a"]
    assert list(misspelled(0.5, ["slumbers"] * 20).run(epoch=1)) == list(
        misspelled(0.5, ["slumbers"] * 20).run(epoch=1)
    )
    assert list(misspelled(0.5, ["slumbers"] * 20).run(epoch=1)) != list(
        misspelled(0.5, ["slumbers"] * 20).run(epoch=2)
    )


def test_pipeline_keeps_every_law(path: Path) -> None:
    check(lambda: pipeline(path), workers=[{"threads": 2}, {"processes": 2}])


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "verses.txt"
        path.write_text(VERSES)
        for batch in pipeline(path):
            print(*batch)

        print("\nThe stages can run in worker processes, while the source stays here:")
        ff.explain(ff.pipe(pipeline(path), ff.prefetch(2, processes=2)))

        test_words_leaves_short_words_out()
        test_misspelled_is_random_in_nothing_but_seed_and_epoch()
        test_pipeline_keeps_every_law(path)
        print("\nthe stages do what they should, and the pipeline keeps every law")


if __name__ == "__main__":
    main()
