"""What a part is, and how trees of them are walked."""

import flowfn as ff
from flowfn.kinds.parts import Traits, sources_first, top_down
from flowfn.kinds.runs import Run


def names(trees):
    return [tree.part.name for tree in trees]


def diamond():
    """One flow, read twice."""
    shared = ff.flow([1])
    return ff.zip(ff.map(abs, shared), ff.take(1, shared))


def test_a_tree_is_walked_top_down_each_once():
    assert names(top_down(diamond())) == names(top_down(diamond().node)) == ["zip", "map", "source", "take"]


def test_a_tree_is_walked_sources_first_each_once():
    assert names(sources_first(diamond())) == names(sources_first(diamond().node)) == ["source", "map", "take", "zip"]


def test_a_walk_stops_where_it_is_told_to():
    assert names(top_down(diamond(), beyond=lambda flow: flow.part.name != "map")) == ["zip", "map", "take", "source"]
    assert names(top_down(*diamond().sources, beyond=lambda flow: False)) == ["map", "take"]


def test_a_source_has_the_usual_traits():
    assert ff.flow([1]).part.traits == ff.flow(iter).part.traits == Traits()


def test_what_arguments_say_is_in_the_traits():
    windows = ff.window(4, step=3).traits
    assert (windows.size, windows.step, ff.batch(2).traits.step) == (4, 3, 2)
    assert ff.batch(2, drop_remainder=True).traits.whole
    assert [ff.zip([1], [2], strict=strict).part.traits.strict for strict in (True, False)] == [True, False]
    assert (ff.repeat(2).traits.rounds, ff.concat([1], [2]).part.traits.rounds) == (True, False)
    assert (ff.repeat(2).traits.switches, ff.concat([1], [2]).part.traits.switches) == (True, True)
    assert ff.shuffle_buffer(3, reuse=2).traits.times == 2


def test_a_guarded_stage_has_the_blocks_of_the_stage_in_it_unless_it_drops():
    def guarded(then):
        traits = ff.guard(ff.batch(2), then=then).traits
        return traits.size, traits.step

    assert (guarded("raise"), guarded("drop")) == ((2, 2), (1, 1))


def test_what_is_made_once_in_a_pass_is_made_once_and_not_too_much_of_it_is_kept():
    run, made = Run(0, (0,)), []

    def once(of):
        return run.once("squares", of, lambda: made.append(of) or of * of, most=2)

    assert [once(of) for of in (1, 2, 1, 2)] == [1, 4, 1, 4]
    assert made == [1, 2]
    assert [once(of) for of in (3, 3, 1)] == [9, 9, 1]
    assert made == [1, 2, 3, 1]
