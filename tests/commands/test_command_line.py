"""The command line: what it prints, what it ends with, and what it says where something is wrong."""

import json
import subprocess
import sys
import textwrap

import pytest

from flowfn.commands import main

PROGRAM = """
    import logging
    import sys
    import time

    import flowfn as ff


    def slow(x):
        time.sleep(0.003)
        return x


    def make(size: int, remainder="keep"):
        return ff.pipe(range(40), ff.map(slow), ff.batch(size, drop_remainder=remainder == "drop"))


    def broken():
        return ff.pipe(range(4), ff.map(lambda x: 1 // x))


    def endless():
        return ff.pipe(lambda: iter(int, 1), ff.map(float), ff.batch(2))


    def unlawful():
        counts = iter(range(1000))
        return ff.pipe(range(4), ff.map(lambda x: next(counts)))


    train = ff.pipe(range(40), ff.shuffle(), ff.map(slow), ff.batch(4))

    if __name__ == "__main__":
        print("reading")
        assert len(train[:2]) == 2 and sys.argv[1:] == ["--epochs", "3"], sys.argv
        for _ in train:
            raise AssertionError("nobody asked for this")
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program_of_somebody.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return str(path)


@pytest.fixture
def asked(capsys):
    def ask(*arguments):
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return ask


def test_a_flow_and_a_function_that_makes_one_are_explained(asked, program):
    code, out, err = asked("explain", f"{program}:train")
    assert (code, err) == (0, "")
    assert out.splitlines()[3].split() == ["map(slow)", "each", "40", "this", "process", "at", "once"]
    _, out, _ = asked("explain", f"{program}:make", "--arg", "size=3", "--arg", "remainder=drop", "--json")
    last = json.loads(out)["stages"][-1]
    assert (last["stage"], last["length"]) == ("batch(3, drop_remainder=True)", "13")


def test_a_program_is_run_until_it_reads_a_flow(asked, program):
    code, out, err = asked("describe", program, "-n", 2, "--", "--epochs", "3")
    assert (code, err) == (0, "reading\n")
    assert out.startswith("datapoint 0 of 10: int64 array, (4,)")
    code, out, err = asked("describe", program)
    assert (code, out) == (1, "")
    assert err.startswith("reading\nflowfn describe: AssertionError")


@pytest.mark.parametrize("reads", ["flow.__getitems__([0, 1])", "FlowIterator(flow, Progress(0, (0,)))"])
def test_a_flow_is_met_however_a_framework_reads_it(asked, tmp_path, reads):
    path = tmp_path / "trained.py"
    path.write_text(
        "import flowfn as ff\nfrom flowfn.flows.iterating import FlowIterator, Progress\n"
        f"flow = ff.pipe(range(6), ff.batch(2))\n{reads}\nraise SystemExit('too far')\n"
    )
    assert asked("explain", path)[0] == 0


def test_a_flow_that_is_read_in_a_thread_is_explained_when_the_program_ends(asked, tmp_path):
    path = tmp_path / "threaded.py"
    path.write_text(
        "import threading\nimport flowfn as ff\nflow = ff.pipe(range(6), ff.batch(2))\n"
        "reader = threading.Thread(target=lambda: print(len([*flow])))\nreader.start()\nreader.join()\n"
    )
    code, out, err = asked("describe", path)
    assert (code, err) == (0, "3\n")
    assert out.startswith("datapoint 0 of 3: int64 array, (2,)")


def test_a_profile_says_what_to_write_in_words_and_as_json(asked, program, tmp_path):
    page, trace = tmp_path / "page.html", tmp_path / "trace.json"
    asked_for = ("profile", f"{program}:train", "-n", 10, "--step", 3)
    code, out, _ = asked(*asked_for, "-o", page, "--trace", trace)
    assert code == 0
    assert "map(slow) holds it" in out
    assert "\x1b" not in out
    assert "<h1>profile</h1>" in page.read_text()
    slices = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    assert {"map(slow)", "batch(4)"} <= {event["name"] for event in slices}
    assert sum(event["dur"] for event in slices if event["name"] == "map(slow)") > 40 * 3000 * 0.9
    data = json.loads(asked(*asked_for, "--json")[1])
    assert data["verdict"]["stage"] == "map(slow)"
    assert data["verdict"]["write"].startswith("prefetch(")


def test_what_flows_is_looked_at_on_a_page(asked, program, tmp_path):
    page = tmp_path / "look.html"
    code, out, _ = asked("look", f"{program}:train", "-n", 2, "-o", page)
    assert (code, out) == (0, f"{page}\n")
    assert "batch(4)" in page.read_text()
    assert asked("look", f"{program}:train", "-n", 2)[1].startswith("look: 2 outputs of 10")


def test_speed_and_laws(asked, program):
    code, out, _ = asked("speed", f"{program}:train", "-n", 5, "--json")
    assert (code, json.loads(out)["datapoints"]) == (0, 5)
    assert asked("check", f"{program}:train")[:2] == (0, "all laws hold\n")
    code, out, err = asked("check", f"{program}:endless", "-n", 6)
    assert (code, out) == (0, "all laws hold for the first 6 outputs\n")
    assert err.startswith("checking the laws for the first 6 outputs, for about ")
    code, out, _ = asked("check", f"{program}:unlawful")
    assert code == 1
    assert out.startswith("broken: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("explain", "{}:nothing"), "flowfn explain: {} has nothing named 'nothing'; its flows are train\n"),
        (("explain", "{}:make"), "missing a required argument: 'size'; give it by --arg name=value\n"),
        (("explain", "no/such.py"), "flowfn explain: there is no file no/such.py; a flow in a module is module:name\n"),
        (("explain", "no_such_module:train"), "there is no module or file no_such_module"),
        (("describe", "{}:broken"), "ZeroDivisionError: integer division or modulo by zero (in map(<lambda>), its "),
        (("explain", "{}:make", "--arg", "size=0"), "got 0 (program_of_somebody.py, line 15)\n"),
        (("look", "{}:train", "-o", "no/such/page.html"), "there is no folder no/such to write no/such/page.html in\n"),
        (("profile", "{}:train", "--step", "nan"), "--step must be a number of milliseconds, 0 or more\n"),
        (("profile", "{}:train", "--step", "-1"), "--step must be a number of milliseconds, 0 or more\n"),
        (("explain", "{}", "--arg", "size=3"), "names no function that --arg could be for"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(asked, program, arguments, said):
    code, out, err = asked(*(argument.format(program) for argument in arguments))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said.format(program) in err


@pytest.mark.parametrize("arguments", [(), ("dance",), ("speed", "x:y", "-n", "0"), ("explain", "x:y", "--arg", "3")])
def test_what_is_no_command_ends_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2


def test_it_goes_through_a_pipe(program):
    command = f"'{sys.executable}' -W error -m flowfn profile '{program}:train' -n 5 | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert done.stdout.startswith("5 outputs, ")
