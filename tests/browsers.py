"""Chromium without a screen, for what has to be seen: Debian's (`apt-get install -y chromium chromium-driver`), driven by
selenium (`pip install "flowfn[dev]"`). With `SCREENSHOTS=folder` in the environment, what was opened is kept there."""

import base64
import os
import shutil
from pathlib import Path

HOSTILE = '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=2">'
"""A string of others, of which a page may run nothing."""


class Browser:
    """Chromium without a screen."""

    def __init__(self):
        from selenium import webdriver

        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not (chromium and driver):
            raise SystemExit("Chromium is not here: apt-get install -y chromium chromium-driver")
        self.keys = lambda: webdriver.ActionChains(self.chrome)
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def open(self, page, width=1440, height=1000, scheme="light", media="screen"):
        """Open a page, as wide and in such light."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.chrome.get(page.as_uri())
        if folder := os.environ.get("SCREENSHOTS"):
            self.save(Path(folder, f"{page.stem}-{width}-{scheme}-{media}.png"))

    def save(self, file):
        """Write what is seen to a picture."""
        options = {"format": file.suffix[1:]} | ({"quality": 80} if file.suffix == ".webp" else {})
        shot = self.chrome.execute_cdp_cmd("Page.captureScreenshot", options)
        file.write_bytes(base64.b64decode(shot["data"]))

    def run(self, script):
        """What some JavaScript returns."""
        return self.chrome.execute_script(f"return {script}")

    def all(self, selector):
        """The elements of a selector."""
        return self.chrome.find_elements("css selector", selector)

    def press(self, *keys):
        """Press keys, wherever the focus is."""
        self.keys().send_keys(*keys).perform()

    @property
    def notice(self):
        """What the page says at its foot."""
        return self.all("#notice")[0].text

    @property
    def focused(self):
        """The call of the number that has the focus."""
        return self.run("document.activeElement.dataset.copy")
