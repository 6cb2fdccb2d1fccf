"""What the package promises as a package."""

import subprocess
import sys
from importlib import import_module, metadata, resources
from types import FunctionType

import pytest

import flowfn as ff
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
