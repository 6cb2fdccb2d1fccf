"""Fill-in tasks for language models: the middle of a text moved to its end, and spans of it left out.

They are functions of one text and a random generator, for `map(rng=True)`. The generator belongs to the text's index,
the seed and the epoch: a text is cut elsewhere in every epoch, and in the same places after a resume, by however many
workers, on any rank.

    pip install flowfn
    python examples/language_tasks.py

Fill-in-the-middle: Bavarian et al., "Efficient Training of Language Models to Fill in the Middle", 2022
(https://arxiv.org/abs/2207.14255). Span corruption: Raffel et al., "Exploring the Limits of Transfer Learning with a
Unified Text-to-Text Transformer" (T5), 2020 (https://arxiv.org/abs/1910.10683), section 3.1.4 and figure 2.
"""

from typing import Any

import numpy as np

import flowfn as ff
from flowfn.testing import check

TEXTS = [
    "Tell me not, in mournful numbers,",
    "Life is but an empty dream!",
    "For the soul is dead that slumbers,",
    "And things are not what they seem.",
]
PREFIX, SUFFIX, MIDDLE = 256, 257, 258
"""Tokens that say which part of a text follows; the others are bytes."""
SENTINEL = 1023
"""What stands for the first span that is left out; those for the next are 1022, 1021, ..."""


def as_tokens(text: str) -> np.ndarray:
    """The bytes of a text as uint16, which leaves room for tokens of one's own."""
    return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)


def fill_in_the_middle(tokens: np.ndarray, rng: np.random.Generator, rate: float = 0.5, spm: float = 0.5) -> np.ndarray:
    """With probability `rate`, a text whose middle has been moved to its end; it is cut at two places drawn uniformly.

    PSM is <prefix> prefix <suffix> suffix <middle> middle. SPM, with probability `spm` of those that are cut, is
    <prefix> <suffix> suffix <middle> prefix middle, so that prefix and middle stand together (the paper's second
    variant). The paper trains on both forms alike, and finds that generation from left to right takes no harm up to a
    rate of 0.9.
    """
    if rng.random() >= rate:
        return tokens
    start, stop = np.sort(rng.integers(0, len(tokens), 2, endpoint=True))
    prefix, middle, suffix = tokens[:start], tokens[start:stop], tokens[stop:]
    if rng.random() < spm:
        parts = [[PREFIX, SUFFIX], suffix, [MIDDLE], prefix, middle]
    else:
        parts = [[PREFIX], prefix, [SUFFIX], suffix, [MIDDLE], middle]
    return np.concatenate(parts, dtype=tokens.dtype, casting="unsafe")


def corrupt_spans(tokens: np.ndarray, rng: np.random.Generator, density: float = 0.15, mean: float = 3.0) -> Any:
    """A text without some spans as "inputs", and these spans as "targets", a sentinel in the place of each.

    `density` of the tokens are left out, in spans that are `mean` long on average: T5's 15 % and 3. Each span is behind
    a token that stays, and one stays at the end, as in the paper's figure; the targets end with one more sentinel. A
    text of fewer than 3 tokens stays whole.
    """
    if len(tokens) < 3:
        return {"inputs": tokens, "targets": np.array([SENTINEL], tokens.dtype)}
    noise = min(max(round(len(tokens) * density), 1), len(tokens) - 2)
    spans = min(max(round(noise / mean), 1), len(tokens) - noise - 1)
    left_out, kept = parts_of(noise, spans, rng), parts_of(len(tokens) - noise, spans + 1, rng)
    cuts = np.cumsum([length for pair in zip(kept, left_out) for length in pair])
    pieces = np.split(tokens, cuts)
    sentinels = [[SENTINEL - number] for number in range(spans + 1)]
    inputs = [part for pair in zip(pieces[::2], sentinels[:-1]) for part in pair] + pieces[-1:]
    targets = [part for pair in zip(sentinels, pieces[1::2]) for part in pair] + sentinels[-1:]
    return {
        name: np.concatenate(parts, dtype=tokens.dtype, casting="unsafe")
        for name, parts in (("inputs", inputs), ("targets", targets))
    }


def parts_of(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """A number as the sum of so many positive ones, all such sums equally likely."""
    cuts = np.sort(rng.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff([0, *cuts, total]).tolist()


def as_text(tokens: np.ndarray) -> str:
    """Tokens to be read: bytes as letters, the others in brackets."""
    names = {PREFIX: "<prefix>", SUFFIX: "<suffix>", MIDDLE: "<middle>"}
    return "".join(names.get(one, chr(one) if one < 256 else f"<{SENTINEL - one}>") for one in tokens.tolist())


def filled_in() -> ff.Flow[Any]:
    """Rows of 64 tokens, in which every second text is to be filled in."""
    return ff.pipe(TEXTS, ff.shuffle(), ff.map(as_tokens), ff.map(fill_in_the_middle, rng=True), ff.pack(64))


def corrupted() -> ff.Flow[Any]:
    """Rows of 64 tokens of texts with gaps, and of 24 with what is missing in them."""
    lengths = {"inputs": 64, "targets": 24}
    return ff.pipe(TEXTS, ff.shuffle(), ff.map(as_tokens), ff.map(corrupt_spans, rng=True), ff.pack(lengths))


def main() -> None:
    """Show both tasks in two epochs, and try the laws on both pipelines."""
    tasks = filled_in(), corrupted()
    for epoch in range(2):
        print(f"epoch {epoch}")
        for tokens, *_ in tasks[0].run(epoch=epoch):
            print("   ", as_text(tokens[tokens > 0]))
        for row in tasks[1].run(epoch=epoch):
            print("   ", as_text(row["inputs"][row["inputs_segment_ids"] > 0]))
            print("      ->", as_text(row["targets"][row["targets_segment_ids"] > 0]))
    for task in (filled_in, corrupted):
        check(task)
    print("both pipelines keep every law: they resume anywhere, with any number of workers and ranks")


if __name__ == "__main__":
    main()
