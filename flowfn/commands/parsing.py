"""The command line: what was asked, and how the answer is printed.

It ends with 0; with 1 where something went wrong, which is said in one line; with 2 where the command is none.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowfn.commands import answering
from flowfn.commands.answering import PrintedAnswer
from flowfn.commands.targets import Wrong, argument, with_target
from flowfn.kinds.failures import marked
from flowfn.kinds.notes import frames
from flowfn.parallel import shut_down
from flowfn.seeing.profiling.tables import print_profile

COMMANDS: dict[str, tuple[Callable[..., PrintedAnswer], str]] = {
    "explain": (answering.explained, "the stages, where each runs, and what may be better"),
    "describe": (answering.summed_up, "what datapoints look like"),
    "look": (answering.looked, "every datapoint after every stage"),
    "speed": (answering.timed, "how fast datapoints come"),
    "profile": (answering.profiled, "why, and which knob to turn"),
    "tune": (answering.tuned, "turn the knobs, and say what to write"),
    "check": (answering.tested, "whether the laws hold"),
}
DEFAULT_OUTPUTS = {"describe": 2, "look": 4, "speed": 5000, "profile": 200, "check": 100}
DEFAULT_SECONDS = {"profile": 30.0, "tune": 60.0, "check": 60.0}


def parser() -> argparse.ArgumentParser:
    """Of everything that may be asked."""
    every = argparse.ArgumentParser(
        prog="flowfn", description="Look into pipelines.", epilog="What comes behind -- are arguments of the program."
    )
    commands = every.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (_, words) in COMMANDS.items():
        one = commands.add_parser(name, help=words, description=f"Say {words}." if name != "tune" else words)
        one.add_argument(
            "target",
            help="module:name or file.py:name of a flow or of a function that returns one, or a "
            "program, whose first flow is meant",
        )
        one.add_argument(
            "--arg",
            action="append",
            default=[],
            type=_argument,
            metavar="NAME=VALUE",
            help="an argument of the function",
        )
        _add_options(one, name)
    state = commands.add_parser("state", help="what saved states say", description="Say what saved states are.")
    state.add_argument("files", nargs="+", metavar="FILE", help="a state, or anything of JSON that holds some")
    for one in commands.choices.values():
        one.add_argument("--json", action="store_true", help="print JSON")
    return every


def _add_options(one: argparse.ArgumentParser, name: str) -> None:
    if name in DEFAULT_OUTPUTS:
        one.add_argument("-n", type=_positive, default=DEFAULT_OUTPUTS[name], help="how many (default: %(default)s)")
    if name == "explain":
        one.add_argument("--elements", action="store_true", help="make the first datapoint, and say what stages give")
    if name in ("look", "profile"):
        one.add_argument("-o", "--output", metavar="PAGE.html", help="write a page")
    if name == "profile":
        one.add_argument("--trace", metavar="TRACE.json", help="write a trace for Chrome or Perfetto")
    if name in ("profile", "tune"):
        one.add_argument("--step", type=float, metavar="MS", help="milliseconds that the consumer needs for an output")
    if name in DEFAULT_SECONDS:
        one.add_argument("--seconds", type=float, default=DEFAULT_SECONDS[name], help="at most (default: %(default)g)")


def _argument(text: str) -> tuple[str, Any]:
    try:
        return argument(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a positive integer, not {text}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer one command; what it returns is the exit code."""
    given = sys.argv[1:] if arguments is None else [*arguments]
    ours = given.index("--") if "--" in given else len(given)
    asked = parser().parse_args(given[:ours], argparse.Namespace(program=given[ours + 1 :]))
    try:
        return _states(asked) if asked.command == "state" else _answer(asked)
    except BrokenPipeError:  # whoever reads this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print(f"flowfn {asked.command}: {in_a_line(error, getattr(asked, 'target', ''))}", file=sys.stderr)
        return 1
    finally:
        shut_down()


def _answer(asked: argparse.Namespace) -> int:
    do, _ = COMMANDS[asked.command]
    for path in (getattr(asked, "output", None), getattr(asked, "trace", None)):  # before what takes long
        if path and not Path(path).parent.is_dir():
            raise Wrong(f"there is no folder {Path(path).parent} to write {path} in")
    with contextlib.redirect_stdout(sys.stderr):  # what the program prints is no part of the answer
        answer: PrintedAnswer = with_target(asked.target, dict(asked.arg), asked.program, lambda make: do(make, asked))
    _print(answer, asked.json)
    return 0 if answer.good else 1


def _states(asked: argparse.Namespace) -> int:
    failed, data = 0, []
    for _, answer, wrong in answering.states(asked.files):
        if answer is None:
            print(f"flowfn state: {wrong}", file=sys.stderr)
            failed = 1
        elif asked.json:
            data.append(answer.data)
        else:
            _print(answer, False)
    if asked.json:
        print(json.dumps(data))
    return failed


def _print(answer: PrintedAnswer, as_json: bool) -> None:
    if as_json:
        print(json.dumps(answer.data), flush=True)
    elif answer.shown is not None and sys.stdout.isatty():
        print_profile(answer.shown)
    else:
        print(answer.text, end="", flush=True)


def in_a_line(error: BaseException, target: str = "") -> str:
    """An error in one line, with the stage or the line of the target's file that it comes from."""
    words = " ".join(str(error).split()) or "no message"
    where = marked(error)
    place = ""
    if where is not None:
        place = f" ({where['before']}{'' if where['index'] is None else where['index']}{where['after']})"
    elif not isinstance(error, Wrong):
        place = _line_of(error, target)
    kind = "" if isinstance(error, (Wrong, ImportError)) else f"{type(error).__name__}: "
    return f"{kind}{words}{place}"


def _line_of(error: BaseException, target: str) -> str:
    """The last line of a target's file that an error came through, in words; nothing, if there is none."""
    files = {Path(one).resolve() for one in (target, target.rpartition(":")[0]) if one.endswith(".py")}
    lines = [one for one in traceback.extract_tb(frames(error)) if Path(one.filename).resolve() in files]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno})" if lines else ""
