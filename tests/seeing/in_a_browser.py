"""Pages as people see them: opened from disk in Chromium, clicked, walked through by keyboard, printed.

It needs Debian's Chromium and its driver (`apt-get install -y chromium chromium-driver`) and selenium (`pip install
"flowfn[dev]"`); without them it fails and says so. Run it by its name: `python -m pytest tests/seeing/in_a_browser.py`.
`SCREENSHOTS=folder` keeps what was seen.
"""

import base64

import numpy as np
import pytest
from browsers import HOSTILE
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import flowfn
import flowfn as ff

LONG = (".label b", "em", ".new em", ".dropped p", "summary")
"""What pages of many stages have besides."""
pytestmark = pytest.mark.timeout(90)


def augmented(d, rng):
    return {**d, "image": np.roll(d["image"], int(rng.integers(60)), 1), "extra": {"a": [1, {"b": HOSTILE}]}}


@pytest.fixture(scope="module")
def short():
    return ff.pipe(range(9), ff.shuffle(), ff.batch(3))


@pytest.fixture(scope="module")
def pages(tmp_path_factory, short):
    """Pipelines of 3 and of 15 stages."""
    folder = tmp_path_factory.mktemp("pages")
    ramp = np.add.outer(np.arange(80), np.arange(120)).astype(np.uint8)
    records = [
        {"image": np.stack([ramp, ramp.T.reshape(80, 120), ramp], 2), "id": k, "text": HOSTILE} for k in range(9)
    ]
    long = ff.pipe(
        ff.mix({"web": records, "books": records}, weights=[2, 1]), ff.shuffle(), ff.map(augmented, rng=True),
        ff.filter(lambda d: d["id"] % 4), ff.guard(ff.map(lambda d: {**d, "y": 1 / (d["id"] - 1)}), then="drop"),
        ff.map(lambda d: {**d, "tokens": np.arange(20)}), ff.shuffle_buffer(3), ff.map(dict), ff.skip(1), ff.take(12),
        ff.tap(lambda d: None), ff.map(lambda d: {**d, "curve": np.sin(np.arange(400) / 9), "rate": 8000}),
        ff.batch(2), ff.prefetch(2, threads=1),
    )  # fmt: skip
    words = {"tokens": lambda ids: " ".join(f"w{i}" for i in ids)}
    return ff.look(short, 3).save(folder / "short.html"), ff.look(long, 3, decode=words).save(folder / "long.html")


def test_a_click_and_a_key_copy_the_call_that_makes_a_datapoint_again(browser, pages, short):
    browser.open(pages[0])
    last = browser.all("tbody tr:last-child button.spot")[1]
    last.click()
    assert browser.notice == "copied: flowfn.replay(flow, 1, seed=0, epoch=0)"
    assert (eval(browser.focused, {"flowfn": flowfn, "flow": short}) == short[1]).all()
    browser.press(Keys.ESCAPE)
    assert browser.notice == ""
    browser.press(Keys.ARROW_UP, Keys.ARROW_RIGHT, Keys.ENTER)
    assert browser.notice == f"copied: {browser.focused}"
    assert browser.focused.startswith("flowfn.replay(flow.sources[0], ")
    assert len(browser.all("article.near")) == 3  # the datapoint, its record, its batch
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert browser.focused == "flowfn.replay(flow, 0, seed=0, epoch=0)"
    assert len(browser.all("#ways path")) == 3 * (3 + 3)
    assert len(browser.all("#ways path.near")) == 6


def contrast(browser, selector):
    """Of the colour of text to what is behind it, as WCAG counts it."""
    return browser.run(
        """((selector) => {
        const light = (colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).map((x) => x / 255)
          .map((x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const one = document.querySelector(selector); let behind = one;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        const [a, b] = [light(getComputedStyle(one).color), light(getComputedStyle(behind).backgroundColor)].sort();
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })"""
        + f"({selector!r})"
    )


@pytest.mark.parametrize("width", [390, 1440])
def test_pages_are_read_in_light_and_dark_on_phones_and_desks(browser, pages, width):
    for page in pages:
        for scheme in ("light", "dark"):
            browser.open(page, width, scheme=scheme)
            assert browser.run("document.documentElement.scrollWidth") <= width  # the table scrolls, and not the page
            for selector in ("h1", ".quiet", ".origin", ".label", "tbody th code", *LONG * (page == pages[1])):
                assert contrast(browser, selector) >= 4.5, (selector, scheme)
            before = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (before == "rgb(255, 255, 255)") == (scheme == "light")
            browser.press("t")
            assert browser.run("getComputedStyle(document.body).backgroundColor") != before


def test_a_page_of_fifteen_stages_shows_all_and_runs_nothing_of_the_data(browser, pages):
    browser.open(pages[1])
    assert len(browser.all("tbody tr")) == 16
    assert not browser.run("window.hacked")
    assert HOSTILE in browser.run("[...document.querySelectorAll('.text')].map((one) => one.textContent)")
    assert (
        browser.run("performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('data:')).length")
        == 0
    )
    assert [entry for entry in browser.chrome.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert len(browser.all("img")) > 20
    assert len(browser.all("details.draws")) == 3
    assert len(browser.all("audio")) > 0
    fold = browser.all("details:not([open]) > summary")[0]
    fold.send_keys(Keys.ENTER)
    assert fold.find_element(By.XPATH, "..").get_attribute("open")


def test_on_paper_all_is_unfolded_and_black_on_white(browser, pages):
    browser.open(pages[1], scheme="dark", media="print")
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert len(browser.all("details:not([open])")) == 0
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not browser.all("#theme")[0].is_displayed()
    paper = browser.chrome.execute_cdp_cmd("Page.printToPDF", {"landscape": True, "printBackground": True})
    assert base64.b64decode(paper["data"]).startswith(b"%PDF")


def test_a_notebook_shows_a_flow_and_what_look_returns(browser, tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "import flowfn as ff\nflow = ff.pipe(range(9), ff.shuffle(), ff.batch(3))\nflow",
        "ff.look(flow, 2)",
        "_ = list(ff.progress(flow))",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python", "language": "python"}
    NotebookClient(notebook, timeout=60).execute()
    table, seen = (cell.outputs[0].data for cell in notebook.cells[:2])
    bar = str(notebook.cells[2].outputs)
    assert "3/3" in bar
    assert "waiting" in bar
    assert seen["text/plain"].startswith("look: 2 outputs of 3")
    page = tmp_path / "notebook.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8>{table['text/html']}<hr>{seen['text/html']}", encoding="utf8")
    browser.open(page)
    assert [one.text for one in browser.all("tbody td:first-child")] == ["flow(range(0, 9))", "shuffle()", "batch(3)"]
    browser.all("summary")[0].click()
    for frame in browser.all("iframe"):
        browser.chrome.switch_to.frame(frame)
        assert len(browser.all("tbody tr")) == 3
        browser.all("button.spot")[-1].click()
        assert "flowfn.replay(flow, 1, seed=0, epoch=0)" in browser.notice
        browser.chrome.switch_to.default_content()
