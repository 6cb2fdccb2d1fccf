"""What came out, beside what should have."""

from flowfn.testing import same


def assert_same(outputs, expected):
    """Datapoint by datapoint, so that a failure says which."""
    assert len(outputs) == len(expected)
    assert [index for index, (a, b) in enumerate(zip(outputs, expected)) if not same(a, b)] == []
