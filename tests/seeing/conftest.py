"""What tests of pages share."""

import pytest
from browsers import Browser


@pytest.fixture(scope="module")
def browser():
    """Chromium, started by the first test of a file that wants it."""
    browser = Browser()
    yield browser
    browser.chrome.quit()
