"""What the package promises as a package."""

import subprocess
import sys
from importlib import import_module, metadata, resources
from pathlib import Path
from types import FunctionType

import pytest

import flowfn as ff
from flowfn.flows.definitions import Definition
from flowfn.pickling.homes import PUBLIC

pytestmark = pytest.mark.everywhere

HEAVY = [
    "loky",
    "cloudpickle",
    "multiprocessing.pool",
    "hypothesis",
    "cv2",
    "pandas",
    "torch",
    "tqdm",
    "sklearn",
    "concurrent.futures.process",
    "flowfn.seeing",
]


def test_importing_flowfn_imports_nothing_heavier_than_numpy():
    program = f"import sys, flowfn; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_core_needs_four_packages():
    core = [need for need in metadata.requires("flowfn") if "extra ==" not in need]
    assert sorted(need.split(">")[0] for need in core) == ["loky", "more-itertools", "numpy", "toolz"]


def test_a_star_import_hides_no_builtin():
    import builtins

    assert not set(ff.__all__) & set(dir(builtins))
    assert all(hasattr(ff, name) for name in [*ff.__all__, "map", "filter", "zip", "enumerate", "slice"])


def test_every_public_function_has_a_docstring_with_an_example():
    for name in [*ff.__all__, "map", "filter", "zip", "enumerate", "slice"]:
        value = getattr(ff, name)
        if callable(value) and name not in ("Flow", "FlowIterator", "stage"):
            assert ">>>" in value.__doc__, name


def test_the_package_says_that_it_is_typed():
    assert resources.files("flowfn").joinpath("py.typed").is_file()


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_what_is_public_says_where_it_is_found(package):
    public = import_module(package)
    names = getattr(public, "__all__", None) or ["check", "pipelines"]
    values = {
        name: getattr(public, name)
        for name in [*names, *(("map", "filter", "zip", "enumerate", "slice") if public is ff else ())]
    }
    homes = {name: value.__module__ for name, value in values.items() if isinstance(value, (FunctionType, type))}
    assert homes == dict.fromkeys(homes, package)
    assert "flowfn.WorkerDied" in str(ff.WorkerDied)


def test_stages_are_called_what_users_write():
    """What a word is made of says so itself, in errors and in `explain`, and not how we call it in here."""
    public = {name for package in PUBLIC for name in vars(import_module(package))}
    for path in Path(ff.__file__).parent.rglob("*.py"):
        module = ".".join(path.relative_to(Path(ff.__file__).parent.parent).with_suffix("").parts)
        try:
            found = [vars(value)["definition"] for value in vars(import_module(module)).values() if _is_word(value)]
        except ImportError:
            continue  # of a library that is not here
        for definition in found:
            word = definition.said.partition("(")[0] or definition.name
            assert word in {*public, "{function}", "_guarded"}, f"{module}: {definition.name} needs said="


def _is_word(value):
    return isinstance(value, FunctionType) and isinstance(vars(value).get("definition"), Definition)


def test_an_error_in_what_a_mix_does_names_the_mix():
    for options, said in (({"unit": lambda one: 1 / 0}, "mix(unit=<lambda>)"), ({"tag": "x"}, "mix(tag='x')")):
        with pytest.raises((ZeroDivisionError, ValueError)) as caught:
            list(ff.mix({"a": [{"x": 1}]}, **options))
        assert caught.value.__notes__[0].startswith(f"in {said} of 'a', its datapoint 0")
    assert repr(ff.epoch_of(3, [1]).part) == "epoch_of(3)"
    assert repr(ff.pipe([1], iter).part) == "iter"
