"""The page of `profile` as people see it; see `in_a_browser.py` for what it needs."""

import json
import time

import pytest
from browsers import HOSTILE
from selenium.webdriver.common.keys import Keys

import flowfn as ff

pytestmark = pytest.mark.timeout(90)


def slow(x):
    time.sleep(0.003)
    return x


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A pipeline of 15 stages, one of them with a name that is no good."""
    slow.__name__ = HOSTILE
    stages = [ff.map(slow), ff.shuffle_buffer(4), *[ff.map(float)] * 8, ff.batch(2), ff.map(len), ff.prefetch(2)]
    file = tmp_path_factory.mktemp("pages") / "profile.html"
    ff.profile(ff.pipe(range(400), ff.shuffle(), *stages), lambda _: time.sleep(0.004), 40).save(file)
    return file


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pass_is_drawn_and_nothing_of_the_data_runs(browser, page, width, scheme):
    browser.open(page, width, scheme=scheme)
    assert browser.run("document.getElementById('timeline').dataset.drawn") == "yes"
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert not browser.run("window.hacked")
    assert [entry for entry in browser.chrome.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert len(browser.all(".stages tbody tr")) == 15
    assert len(browser.all("tr.holds")) == 1
    assert json.loads(browser.run("document.getElementById('timeline').dataset.timeline"))["threads"]


def test_it_is_zoomed_by_keys_and_the_knob_is_copied(browser, page):
    browser.open(page)
    canvas = browser.all("#timeline")[0]
    drawn = "document.getElementById('timeline').toDataURL()"
    whole = browser.run(drawn)
    canvas.click()
    browser.press("+", Keys.ARROW_LEFT)
    closer = browser.run(drawn)
    assert closer != whole
    browser.press("0")
    assert browser.run(drawn) == whole
    assert browser.all("#under")[0].text != ""
    browser.all(".write [data-copy]")[0].click()
    assert browser.notice.startswith("copied: prefetch(")


def test_it_prints(browser, page):
    browser.open(page, media="print")
    assert browser.run("getComputedStyle(document.querySelector('.keys')).display") == "none"
