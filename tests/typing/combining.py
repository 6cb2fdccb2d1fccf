"""The types of the words for several sources."""

from typing import Any, assert_type

import flowfn as ff


def half(x: int) -> float:
    return x / 2


def one_after_the_other() -> None:
    assert_type(ff.concat([1], ff.flow([2])), ff.Flow[int])
    assert_type(ff.pipe(ff.concat([1], [2]), ff.map(half)), ff.Flow[float])


def side_by_side() -> None:
    assert_type(ff.zip([1]), ff.Flow[tuple[int]])
    assert_type(ff.zip([1], ["a"]), ff.Flow[tuple[int, str]])
    assert_type(ff.zip([1], ["a"], ff.map(half, [1]), strict=False), ff.Flow[tuple[int, str, float]])
    assert_type(ff.zip([1], ["a"], [1.5], [b""], [None]), ff.Flow[tuple[int, str, float, bytes, None]])
    assert_type(ff.zip([1], ["a"], [1.5], [b""], [None], [1]), ff.Flow[tuple[Any, ...]])
    assert_type(ff.pipe(ff.zip([1], ["a"]), ff.map(lambda pair: pair[1])), ff.Flow[str])


def components_joined() -> None:
    assert_type(ff.zip_components([[1]], [[2]]), ff.Flow[list[int]])
    assert_type(ff.zip_components([(1,)], [("a", "b")]), ff.Flow[tuple[Any, ...]])
    assert_type(ff.zip_components([{"x": 1}], [{"y": "a"}], strict=False), ff.Flow[dict[str, Any]])


def mixed() -> None:
    assert_type(ff.mix([1], [2], weights=[0.9, 0.1], until="all", random=True), ff.Flow[int])
    assert_type(ff.mix({"web": ["a"], "code": ["b"]}, weights={"web": 3, "code": 1}), ff.Flow[str])
    assert_type(ff.mix({"web": ["a"], "code": ["b"]}, tag="from"), ff.Flow[Any])
    with iter(ff.mix([1], [2])) as iterator:
        assert_type(ff.quotas(iterator)[0].delivered, float)
    assert_type(ff.mix(["a"], ["b"], unit=len, epochs={0: 2.5}, temperature=3), ff.Flow[str])
    assert_type(ff.mix(["a"], ["b"], unit=0, weights=ff.phases({0: [1, 0], 10: [1, 1]}, ramp=5)), ff.Flow[str])
