# pyright: basic, reportUnnecessaryTypeIgnoreComment=true
"""Pipelines that do not fit together: both checkers have to find each mistake, in the line that says so.

Where a stage does not fit the one before it, pyright points at the stage. So does mypy at the first stage of a pipe; at
a later one it points at the pipe and names what comes out of the stage before: "type parameter _After1" is what stage 1
gives.
"""

from collections.abc import Iterable, Iterator

import numpy as np

import flowfn as ff


def half(x: int) -> float:
    return x / 2


def noisy(x: float, rng: np.random.Generator) -> float:
    return x + rng.normal()


def words(line: str) -> list[str]:
    return line.split()


def sums(source: Iterable[float]) -> Iterator[float]:
    yield sum(source)


def the_first_stage_does_not_fit_the_source() -> None:
    ff.pipe(
        ["a"],
        ff.map(half),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        ff.batch(2),
    )


def a_later_stage_does_not_fit_the_one_before() -> None:
    ff.pipe(  # type: ignore[misc]
        [1],
        ff.map(half),
        ff.map(len),  # pyright: ignore[reportArgumentType]
        ff.batch(2),
    )


def nor_behind_stages_that_keep_the_type() -> None:
    ff.pipe(  # type: ignore[misc]
        [1],
        ff.shuffle(),
        ff.map(half),
        ff.prefetch(2),
        ff.flat_map(words),  # pyright: ignore[reportArgumentType]
        ff.shuffle(),
    )


def a_stage_with_a_name() -> None:
    halves = ff.map(half)
    ff.pipe([1], halves, halves)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


def a_plain_function_of_an_iterable() -> None:
    ff.pipe(["a"], sums)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.pipe(["a"], ff.shuffle(), sums)  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


def a_function_of_a_datapoint_is_no_stage() -> None:
    ff.pipe([1], half)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def predicates() -> None:
    ff.pipe(["a"], ff.filter(half))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.pipe(["a"], ff.shuffle(), ff.filter(half))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    ff.pipe(["a"], ff.tap(half))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.pipe(["a"], ff.take_while(half))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def lambdas() -> None:
    ff.pipe([1], ff.map(lambda x: x.upper()))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    ff.pipe([1], ff.shuffle(), ff.map(half), ff.map(lambda x: x.upper()))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    ff.pipe([1], ff.shuffle(), ff.tap(lambda x: x.upper()), ff.shuffle())  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    ff.map(lambda x: x.upper(), [1])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def what_mypy_does_not_see() -> None:
    """What a lambda makes of what a lambda made is Any for it."""
    ff.pipe([1], ff.map(lambda x: x / 2), ff.map(lambda x: x.upper()))  # pyright: ignore[reportAttributeAccessIssue]
    ff.pipe([1], ff.map(lambda x: x / 2), ff.map(len))  # pyright: ignore[reportArgumentType]


def compositions() -> None:
    ff.compose(ff.map(half), ff.map(len))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    ff.pipe(["a"], ff.compose(ff.map(half), ff.shuffle()))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def the_wrong_source_of_a_word() -> None:
    ff.map(half, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.map(half)(["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    ff.filter(half, ["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.flat_map(words, [1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.shuffle(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.flow(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ff.pipe(None)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def functions_that_draw() -> None:
    ff.map(noisy, [1.5])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.map(half, [1], rng=True)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ff.pipe([1.5], ff.map(noisy))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def wrong_arguments() -> None:
    ff.batch("2")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.batch()  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ff.batch(2, collate=3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ff.shuffle(buffer=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    ff.take(1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.shard(0, 2, remainder="all")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.select(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.prefetch(2, 2)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.cache_to(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.mix([1], [2], until="never")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.mix([1], [2], unit=1.5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.guard(ff.map(half), then="skip")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    ff.guard(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.fake("abc")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


def what_is_no_stage() -> None:
    ff.pipe([1], 3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.pipe([1], ff.shuffle([1]))  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    ff.compose(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def a_guarded_stage() -> None:
    ff.pipe(["a"], ff.guard(ff.map(half), then="drop"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ff.pipe([1], ff.shuffle(), ff.guard(ff.map(half), then=lambda x, error: None), ff.map(half))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]


def wrong_annotations() -> ff.Flow[str]:
    flow: ff.Flow[str] = ff.pipe([1], ff.shuffle(), ff.map(half))  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    ff.zip([1], ["a"])[0][1] + 1  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    return ff.pipe([1], ff.shuffle(), ff.cache()) if flow else flow  # type: ignore[misc]  # pyright: ignore[reportReturnType]
