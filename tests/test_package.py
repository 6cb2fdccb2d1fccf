"""What the package promises as a package."""

import subprocess
import sys
from importlib import metadata, resources

import flowfn as ff

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
