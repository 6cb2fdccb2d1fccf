"""What is logged in workers reaches the handlers of the process that iterates."""

import logging

import flowfn as ff

LOG = logging.getLogger("tests.pipeline")


def noisy(x):
    LOG.debug("nobody wants %s", x)
    if x % 3 == 0:
        LOG.info("at %s", x, extra={"datapoint": x, "held": [x]})
    if x == 4:
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            LOG.exception("divided")
    return x


def with_a_handler_of_its_own():
    logging.getLogger("tests").addHandler(logging.NullHandler())


def logged(caplog, **how):
    caplog.clear()
    with caplog.at_level(logging.INFO, "tests"):
        assert list(ff.pipe(range(6), ff.map(noisy), ff.prefetch(2, **how))) == list(range(6))
    return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == LOG.name]


def test_records_of_workers_reach_the_handlers_here(caplog):
    said = [("INFO", "at 0"), ("INFO", "at 3"), ("ERROR", "divided")]
    assert logged(caplog, threads=2)
    assert sorted(logged(caplog, processes=2)) == sorted(said)
    first = next(record for record in caplog.records if "at 3" in record.getMessage())
    assert (first.datapoint, first.processName != "MainProcess", hasattr(first, "held")) == (3, True, False)
    assert "ZeroDivisionError" in next(record for record in caplog.records if record.levelname == "ERROR").exc_text
    assert sorted(logged(caplog, processes=1)) == sorted(said)


def test_workers_that_have_handlers_of_their_own_keep_them(caplog):
    assert logged(caplog, processes=1, setup=with_a_handler_of_its_own) == []
