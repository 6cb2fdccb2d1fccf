"""`look` shows what flows: the very datapoints, each with the call that makes it again, and advances nothing."""

import re
import sys
import time
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import streamed

import flowfn
import flowfn as ff
from flowfn.seeing.looking import drawing_anew
from flowfn.seeing.looking.views import Sight
from flowfn.seeing.pages import rendering
from flowfn.testing import strategies


def items(row):
    return [item for cell in row.cells for item in cell.items]


def forms(datapoint, **how):
    """How the components of a datapoint are drawn."""
    (item,) = items(ff.look([datapoint], 1, **how).rows[0])
    return {part.name.strip("'"): part.form for part in item.view.parts}


def calls_are_right(flow, n=3):
    """Every datapoint that is shown is what its call makes."""
    seen, called = ff.look(flow, n), 0
    for row in seen.rows:
        for item in items(row):
            if item.call:
                again = eval(item.call, {"flowfn": flowfn, "flow": flow})
                assert Sight().of(again).sum == item.view.sum, (row.name, item.call)
                called += 1
    return seen, called


def double(x, rng):
    return {"x": x, "noise": rng.integers(1 << 40)}


def test_a_batch_is_shown_with_all_that_it_was_made_of():
    flow = ff.pipe(range(20), ff.shuffle(), ff.map(lambda x: [x, -x]), ff.batch(4), ff.prefetch(2, threads=2))
    seen, called = calls_are_right(flow)
    assert [(row.kind, len(items(row))) for row in seen.rows] == [
        ("source", 12), ("order", 12), ("each", 12), ("group", 3), ("prefetch", 0)
    ]  # fmt: skip
    assert called == 39
    (batch,) = seen.rows[3].cells[1].items
    inputs = {item.id: item for item in items(seen.rows[2])}
    assert [inputs[part].number for part in batch.parts] == [4, 5, 6, 7]
    assert batch.origins == tuple(str(one.index) for one in ff.origins(flow, 1)[:3])
    assert batch.view.parts[0].words[:2] == ("int64 array", "(4,)")
    shuffled = {item.id: item for item in items(seen.rows[1])}
    assert all(shuffled[part].origins == item.origins for item in inputs.values() for part in item.parts)


def test_a_flow_that_is_used_twice_has_one_row():
    twice = ff.map(double, range(3), rng=True)
    seen, called = calls_are_right(ff.zip(twice, twice, range(3)))
    assert [row.kind for row in seen.rows] == ["source", "each", "source", "each"]
    assert called == 12
    (item,) = seen.rows[3].cells[0].items
    assert item.parts == (seen.rows[1].cells[0].items[0].id, seen.rows[2].cells[0].items[0].id)


def test_large_batches_are_shown_in_part_and_counted():
    seen = ff.look(ff.pipe(range(10**6), ff.batch(100_000), ff.batch(2)), 1)
    (outer,), first = items(seen.rows[2]), items(seen.rows[1])[0]
    assert (len(outer.parts), outer.others, len(first.parts), first.others) == (2, 0, 6, 99_994)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ff.pipe(streamed(range(60)), ff.filter(lambda x: x % 3), ff.shuffle_buffer(7), ff.map(double, rng=True)),
        lambda: ff.pipe(ff.mix({"a": range(9), "b": range(100, 140)}, weights=[1, 2]), ff.window(3, step=2), ff.unbatch()),
        lambda: ff.pipe(ff.zip(ff.map(double, range(9), rng=True), ff.map(double, range(9), rng=True)), ff.shuffle()),
        lambda: ff.pipe(range(9), ff.shuffle(), ff.freeze(seed=3), ff.map(double, rng=True), ff.repeat(2), ff.shard(1, 2)),
        lambda: ff.epoch_of(7, ff.filter(lambda d: d["noise"] % 3, ff.map(double, range(9), rng=True))),
        lambda: ff.pipe([[1] * n for n in (3, 1, 4, 1, 5, 2)] * 3, ff.shuffle(), ff.map(np.array), ff.pack(6), ff.batch(2)),
    ],
)  # fmt: skip
def test_every_datapoint_comes_with_the_call_that_makes_it_again(make):
    flow = make().reset_state(5).set_epoch(2)
    seen, called = calls_are_right(flow)
    assert called >= 3
    last = [row for row in seen.rows if not row.plain][-1]
    for k, (item,) in enumerate(cell.items for cell in last.cells):
        assert item.call == f"flowfn.replay(flow, {k}, seed=5, epoch=2)"
        found = ff.origins(flow, k)
        several = len([row for row in seen.rows if row.kind == "source"]) > 1
        names = [f"{one.source} {one.index}" if several else f"{one.index}" for one in found]
        assert item.origins == tuple(dict.fromkeys(names))[:3]


@pytest.mark.filterwarnings("ignore::flowfn.kinds.losses.NothingLeft")
@settings(max_examples=25, deadline=None)
@given(strategies.recipes(4), st.booleans())
def test_looking_at_any_pipeline_shows_its_outputs(recipe, stream):
    data = [[f"<{number}>"] for number in range(12)]
    try:
        flow = strategies.RandomPipeline(lambda: streamed(data) if stream else data, recipe.stages)().reset_state(3)
    except (ValueError, TypeError):  # a stage that this source cannot have
        return
    outputs = list(islice(flow.run(), 3))
    shown = [items(row) for row in ff.look(flow, 3).rows if not row.plain][-1]
    assert [item.view.sum for item in shown] == [Sight().of(output).sum for output in outputs]


def test_looking_advances_nothing():
    made = []
    flow = ff.pipe([3, 1, 2], ff.tap(made.append), ff.cache(), ff.shuffle(), ff.map(double, rng=True)).reset_state(4)
    untouched, before = list(flow.run()), flow.state_dict()
    made.clear()
    ff.look(flow)
    assert sorted(made) == [1, 2, 3]  # a cache of its own: the flow's would have answered
    assert (flow.state_dict(), flow.epoch, list(flow)) == (before, 0, untouched)
    with pytest.raises(TypeError, match="gives each datapoint once, so what is looked at would be lost"):
        ff.look(ff.pipe(iter([1, 2]), ff.map(float)))
    with pytest.raises(ValueError, match="n must be an integer from 1 to 24, got 25"):
        ff.look([1], 25)


def test_what_differs_from_the_stage_before_is_marked():
    source = [{"image": np.zeros((4, 4), np.uint8), "name": "a", "id": 7, "wide": np.zeros(3)}]

    def changed(d):
        return {"image": d["image"].astype(np.float32), "name": "b", "wide": d["wide"][:2], "new": 1}

    (item,) = items(ff.look(ff.pipe(source, ff.map(changed)), 1).rows[1])
    marks = {part.name: part.mark for part in item.view.parts}
    assert marks == {"'image'": "type", "'name'": "values", "'wide'": "size", "'new'": "new"}
    assert item.view.gone == ("'id'",)
    (same,) = items(ff.look(ff.pipe(source, ff.map(dict)), 1).rows[1])
    assert {same.view.mark, *(part.mark for part in same.view.parts)} == {""}


def test_random_stages_show_what_they_would_draw_in_other_epochs():
    flow = ff.pipe([10, 20], ff.map(double, rng=True))
    for k, item in enumerate(items(ff.look(flow).rows[1])):
        later = [Sight().of(ff.replay(flow, k, epoch=epoch)) for epoch in (1, 2, 3)]
        assert [draw.sum for draw in item.draws] == [view.sum for view in later]


def test_of_what_is_very_large_no_other_draws_are_shown(monkeypatch):
    monkeypatch.setattr(drawing_anew, "KEPT", 1000)  # bytes, of all together
    flow = ff.pipe([np.zeros(60)] * 3, ff.map(lambda x, rng: x[:3] + rng.random(), rng=True))
    assert [[len(item.draws) for item in items(ff.look(flow, n).rows[1])] for n in (1, 3)] == [[3], [0, 0, 0]]


def test_what_guards_drop_is_named_with_its_error():
    seen = ff.look(ff.pipe(["2", "x<b>", "4"], ff.guard(ff.map(int), then="drop")), 2)
    (dropped,) = seen.rows[1].dropped
    assert (dropped.index, str(dropped.error)) == (1, "invalid literal for int() with base 10: 'x<b>'")
    assert (seen.rows[1].given, seen.rows[1].taken) == (2, 3)
    assert "failed 1: ValueError: invalid literal" in str(seen)
    assert "x&lt;b&gt;" in seen.html


def test_a_step_has_its_own_time_and_its_bytes():
    def slow(x):
        time.sleep(0.02)
        return np.zeros(1000)

    seen = ff.look(ff.pipe([1, 2], ff.map(slow), ff.batch(2)), 1)
    assert [item.seconds >= 0.02 for item in items(seen.rows[1])] == [True, True]
    (batch,) = items(seen.rows[2])
    assert batch.seconds < 0.02
    assert batch.view.bytes == 16_000
    assert '<span class="cost">' in seen.html


def test_what_is_kept_in_files_is_not_made_again(tmp_path):
    flow = ff.pipe(range(3), ff.map(float), ff.cache_to(tmp_path / "kept"))
    list(flow)
    seen = ff.look(flow, 1)
    assert [len(items(row)) for row in seen.rows] == [0, 0, 1]
    assert "kept: not made again" in str(seen)


def test_components_are_drawn_as_what_they_are():
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (40, 60, 3), np.uint8)
    drawn = forms({
        "photo": photo, "mask": np.eye(40, 60, dtype=np.uint8), "boxes": np.array([[5.0, 5, 30, 30]]), "planes": photo.T,
        "batch": np.stack([photo] * 9), "grey": photo[..., 0] / 255, "curve": rng.normal(size=5000), "few": np.arange(3),
        "ids": np.arange(90), "field": rng.normal(size=(5, 4, 3, 2)), "text": "a b", "row": [1, 2, 3], "nested": {"a": [1]},
    })  # fmt: skip
    assert drawn == {
        "photo": "images", "mask": "images", "boxes": "values", "planes": "images", "batch": "images", "grey": "images",
        "curve": "line", "few": "values", "ids": "line", "field": "histogram", "text": "text", "row": "values", "nested": "",
    }  # fmt: skip
    plain, over = (
        items(ff.look([one], 1).rows[0])[0].view.parts[0].drawn for one in ([photo], [photo, photo[..., 0] > 99])
    )
    assert plain != over  # the mask lies over it
    boxed = (
        items(ff.look([{"photo": photo, "boxes": [[5, 5, 30, 30], [1, 1, 9, 9]]}], 1).rows[0])[0].view.parts[0].drawn
    )
    assert plain != boxed != over
    assert forms({"ids": np.arange(9), "x": np.arange(9)}, decode={"ids": str}) == {"ids": "tokens", "x": "values"}
    assert forms([np.zeros(999), [5, 6]], decode=repr, rate=8000) == {"0": "sound", "1": "tokens"}
    assert forms({"wave": np.zeros(999, np.int16), "sample_rate": 16000})["wave"] == "sound"


def test_tensors_are_drawn_as_arrays_are():
    torch = pytest.importorskip("torch")
    tensors = {
        "image": torch.rand(3, 32, 32), "half": torch.zeros(50, dtype=torch.bfloat16), "grad": torch.ones(50, requires_grad=True),
        "sparse": torch.eye(3).to_sparse(), "meta": torch.empty(3, device="meta"),
    }  # fmt: skip
    assert forms(tensors) == {"image": "images", "half": "line", "grad": "line", "sparse": "", "meta": ""}


def test_strings_of_others_stay_text():
    hostile = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    flow = ff.pipe([{hostile: hostile, "ids": np.arange(9)}], ff.map(dict))
    page = ff.look(flow, 1, decode={"ids": lambda ids: hostile}).html
    assert "alert(1)" in page
    assert not re.search(r"<script>alert|<img src=x|onerror=\"", page)
    assert "default-src 'none'" in page.replace("&#39;", "'")
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_huge_and_odd_datapoints_are_bounded():
    class Odd:
        def __repr__(self):
            raise ValueError

    huge = {
        "wide": np.zeros((300, 100_000, 3), np.uint8), "tokens": np.arange(10**6), "list": list(range(10**6)),
        "many": {f"component {k}": np.zeros((64, 64)) for k in range(1000)}, "text": "x" * 10**6, "odd": Odd(),
        "empty": np.zeros((0, 3)), "bare": np.float32(2), "nan": np.full(99, np.nan), "structured": np.zeros(3, "i4,f4"),
        "deep": [[[[[[[[1]]]]]]]], "infinite": np.array([np.inf] * 50), "complex": np.zeros(99, complex), "none": None,
    }  # fmt: skip
    began = time.process_time()
    seen = ff.look(ff.pipe([huge] * 4, ff.map(dict), ff.batch(2, collate=None)), 2, decode={"tokens": str})
    assert len(seen.html) < 5_000_000
    wide = {f"{k}": np.random.Generator(np.random.Philox(k)).normal(size=(99, 99)) for k in range(20)}
    many = ff.pipe([wide] * 99, *[ff.map(lambda d: {k: x + 1 for k, x in d.items()})] * 2, ff.batch(4))
    assert 1_000_000 < len(ff.look(many, 24).html) < 5_000_000
    assert time.process_time() - began < 10  # two pages
    assert max(map(len, str(seen).splitlines())) <= 80
    assert ff.look([], 2).count == 0
    assert "0 outputs" in str(ff.look([]))


def test_printed_it_is_a_table_of_80_columns():
    flow = ff.pipe([[f"{'file' * 30}{k}", k] for k in range(9)], ff.shuffle(), ff.map(lambda d: [len(d[0]), *d[1:]]))
    said = re.sub(r"x \S+ (µs|ms)", "x # s", str(ff.look(flow, 1)))
    assert re.sub(" {4,}", "   ", said).splitlines() == [
        "look: 1 output of 9, seed 0, epoch 0",
        "flow([['filefilefilefilefilefilefil...ilefile...  source   1 x # s",
        "  0  [1] {0: str length 121 'filefilefilefilefilefilefil...ilefilefilefilefil...",
        "shuffle()   order   1 x # s",
        "  0  [1] as before",
        "map(<lambda>)   each   1 x # s",
        "  0  [1] {0: ~int 121, ...}",
    ]


def test_a_notebook_shows_a_flow_as_its_table():
    flow = ff.pipe(range(9), ff.shuffle(), ff.batch(3))
    shown = flow._repr_html_()
    assert re.findall(r"<code>(.*?)</code>", shown)[:3] == ["flow(range(0, 9))", "shuffle()", "batch(3)"]
    assert "<details><summary>look" in shown
    assert "&lt;article" in shown  # in a frame
    slow = ff.pipe(range(9), ff.map(lambda x: time.sleep(0.5) or x), ff.shuffle_buffer(9))
    assert "takes longer than 2 s" in slow._repr_html_()
    assert "ZeroDivisionError" in ff.pipe([0], ff.map(lambda x: 1 / x))._repr_html_()


def test_without_jinja_there_are_lines_of_text(monkeypatch):
    rendering._templates.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    seen = ff.look(range(3))
    assert str(seen).startswith("look: 3 outputs")
    assert (seen._repr_html_(), ff.flow(range(3))._repr_html_()) == (None, None)
    with pytest.raises(
        ImportError, match=r'look\(\) needs jinja2, which is not installed: pip install "flowfn\[seeing\]"'
    ):
        seen.save("nowhere.html")


def test_a_page_is_a_file_that_stands_alone(tmp_path):
    seen = ff.look(range(3))
    assert seen.save(tmp_path / "look.html").read_text(encoding="utf8") == seen.html
    assert seen._repr_html_().startswith("<iframe srcdoc=")
