"""The laws, on random compositions of the built-in stages."""

import pytest
from hypothesis import HealthCheck, given, settings

from flowfn.testing import check, pipelines

pytestmark = pytest.mark.timeout(400)

calm = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=50, **calm)
@given(pipelines())
def test_random_pipelines_keep_the_laws(make_flow):
    check(make_flow, workers=(), stops=6)


@settings(max_examples=24, **calm)
@given(pipelines())
def test_random_pipelines_are_the_same_in_threads(make_flow):
    check(make_flow, epochs=(1,), workers=({}, {"threads": 2}, {"threads": 3}), stops=4)


@pytest.mark.long
@settings(max_examples=12, **calm)
@given(pipelines())
def test_random_pipelines_are_the_same_in_processes(make_flow):
    check(make_flow, epochs=(1,), workers=({"processes": 1}, {"processes": 2}), stops=3)
