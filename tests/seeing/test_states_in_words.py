"""Saved states in words, on the page and on the command line."""

import json
import os
import subprocess
import sys
from itertools import islice

import pytest

import flowfn as ff


def make(rank=1, world=4):
    source = ff.mix({"web": range(400), "code": range(90)}, weights=[3, 1])
    return ff.pipe(source, ff.shuffle(), ff.shard(rank, world), ff.batch(4))


def state_of(flow, k=5, **keywords):
    with flow.run(seed=7, epoch=2, **keywords) as iterator:
        list(islice(iterator, k))
        return iterator.state_dict()


def told(capsys, *arguments):
    ff.describe_state(*arguments)
    return capsys.readouterr().out.splitlines()


def test_a_state_says_where_it_stands_and_what_it_leaves_out(capsys):
    lines = told(capsys, state_of(make(), skip=[9, ("web", 3), ("web", 4), ("code", 80)]))
    assert lines[0].startswith("state of [source[400] + source[90]] > mix(")
    assert lines[1:-1] == [
        "  seed 7, epoch 2: 5 outputs given, 80 datapoints used",
        "  rank 1 of 4",
        "  left out: datapoints 144 to 159",
        "  left out: records 3 to 4 of source web",
        "  left out: records 80 of source code",
        "  as it was saved: its digest is right",
    ]
    assert lines[-1].endswith(" bytes of JSON")


def test_with_the_flow_it_says_how_far_that_is_and_who_can_go_on(capsys):
    flow = ff.pipe(range(200), ff.shuffle(), ff.shard(0, 2), ff.batch(10))
    assert told(capsys, state_of(flow), flow)[-4:] == [
        told(capsys, state_of(flow))[-1],
        "  50 % of the epoch: 5 of 10 outputs",
        "  goes on at once",
        "  any number of ranks can go on from it",
    ]
    tied = ff.pipe(range(200), ff.shard(0, 2), ff.shuffle(), ff.batch(10))
    assert told(capsys, state_of(tied), tied)[-1] == "  only rank 0 of 2 can go on from it"
    stream = ff.pipe(range(200), ff.filter(lambda x: x % 2), ff.batch(10))
    assert told(capsys, state_of(stream), stream)[-1] == "  goes on from its anchors"
    again = ff.pipe(range(200), ff.shuffle_buffer(9), ff.batch(10))
    assert told(capsys, state_of(again), again)[-1] == "  reads the epoch again up to shuffle_buffer(9)"
    mixed = ff.pipe(ff.mix({"web": range(400), "code": range(90)}, weights=[3, 1]), ff.batch(4))
    assert "  source web of the mix: 15 datapoints given" in told(capsys, state_of(mixed))
    assert "  source web of the mix: 15 given, 15 due" in told(capsys, state_of(mixed), mixed)
    shared = ff.pipe(mixed.sources[0], ff.shard(1, 4), ff.batch(4))
    assert "  source code of the mix: 20 given, 20 due" in told(capsys, state_of(shared), shared), "of all ranks"
    tokens = ff.mix({"web": ["ab"] * 90, "code": ["abcd"] * 90}, weights=[1, 1], unit=len)
    assert "  source web of the mix: 20 given, 20 due" in told(capsys, state_of(tokens, 15), tokens), "in its unit"


def test_damage_is_told(capsys):
    state = state_of(make())
    assert "  the state was damaged or edited: seed is not what was saved" in "\n".join(
        told(capsys, {**state, "seed": 8})
    )


def test_in_a_flow_that_it_is_not_of_no_stage_of_that_is_named(capsys):
    filtered = ff.pipe(range(9), ff.filter(bool))
    state = state_of(filtered, 3)
    assert "  filter(bool): starts again after 2 outputs" in told(capsys, state, filtered)
    lines = told(capsys, state, ff.pipe(range(9), ff.map(str), ff.batch(2)))
    assert "  stage 1: starts again after 2 outputs" in lines
    assert any(line.startswith("  it cannot be loaded here: the state was saved by another pipeline") for line in lines)


def test_states_are_found_in_what_frameworks_keep(capsys, tmp_path):
    state = state_of(make())
    kept = {"epoch": 3, "loaders": [{"train": {"flow": state}}, {"text": json.dumps(state)}]}
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    for one in (kept, tmp_path / "kept.json", str(tmp_path / "kept.json")):
        heads = [line for line in told(capsys, one) if line.startswith("at ")]
        assert heads == ["at loaders.0.train.flow:", "at loaders.1.text:"]


def test_what_is_no_state_is_said(tmp_path):
    (tmp_path / "other.json").write_text('{"a": 1}')
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"there is no state of a flow in .*other.json"):
        ff.describe_state(tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"broken.json is no JSON"):
        ff.describe_state(tmp_path / "broken.json")
    with pytest.raises(FileNotFoundError):
        ff.describe_state(tmp_path / "missing.json")
    with pytest.raises(TypeError, match="state must be a state, something that holds some, or the path of a JSON file"):
        ff.describe_state(7)


def test_the_command_line_says_the_same(capsys, tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps(state_of(make())))
    missing, binary, other = (tmp_path / name for name in ("missing.json", "binary.json", "other.json"))
    binary.write_bytes(b"\xff\xfe")
    other.write_text("{}")
    command = [sys.executable, "-m", "flowfn", "state", str(path), str(missing), str(binary), str(other)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.stdout.splitlines() == told(capsys, path)
    assert done.returncode == 1
    first, second, third = done.stderr.splitlines()
    assert first == f"flowfn state: {missing}: No such file or directory"
    assert second.startswith(f"flowfn state: {binary}: 'utf-8' codec can't decode")
    assert third == f"flowfn state: there is no state of a flow in {other}"


def test_the_command_line_is_silent_where_nobody_reads_on(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps([state_of(make())] * 500))
    command = f"'{sys.executable}' -m flowfn state '{path}' | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120, env=os.environ)
    assert (done.stdout, done.stderr) == ("at 0:\n", "")
