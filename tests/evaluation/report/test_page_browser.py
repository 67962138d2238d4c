"""The report's page in a real browser: draws, asks nobody, fits a phone, knows the dark, keeps names harmless."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from evaluation.report.page import render_page
from evaluation.summarise import summarise_all
from tests.support.fabricated import make_played, make_pool

EVIL = "<img src=x onerror=document.title='broken'><script>"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1200,900",
)  # fmt: skip
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)
DRAWN = """
  const undrawn = [...document.querySelectorAll(".plot")].filter((plot) => {
    const svg = plot.querySelector("svg");
    return !svg || svg.getBoundingClientRect().height < 50 || svg.getBoundingClientRect().width < 50
      || svg.querySelectorAll("path, text").length < 3;
  });
  if (undrawn.length) undrawn[0].scrollIntoView();
  return undrawn.map((plot) => plot.id);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, one with many strategies, pictures, and names that are code."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "sample.png").write_bytes(PNG)
    pool = make_pool(
        f"toy {EVIL}",
        text=np.array([EVIL] * 60),
        picture=np.array([str(folder / "sample.png")] * 60),
        class_names=(EVIL, "bee", "cat"),
    )
    gains = {EVIL: 0.1, "random": 0.0} | {f"strategy_{i}": 0.01 * i for i in range(8)}
    played = [make_played(pool, gains, (EVIL,)), make_played(make_pool("toy", ("a" * 60, "b")), gains, (EVIL,))]
    (folder / "report.html").write_text(render_page(played, summarise_all(played)), "utf-8")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not (program and driver):
        reason = "needs Chromium and chromedriver on the PATH"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    options = ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def show(browser: Chrome, page: Path) -> Callable[..., Chrome]:
    """Open the page at a width, light or dark, and wait until every chart is drawn."""

    def open_page(width: int = 1200, dark: bool = False) -> Chrome:
        set_theme(browser, dark)
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        for kind in ("browser", "performance"):
            browser.get_log(kind)  # empties it
        browser.get(page.as_uri())
        WebDriverWait(browser, 60).until(lambda b: not b.execute_script(DRAWN))
        return browser

    return open_page


def set_theme(browser: Chrome, dark: bool) -> None:
    value = "dark" if dark else "light"
    features = [{"name": "prefers-color-scheme", "value": value}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def luminance(browser: Chrome, element: str, what: str) -> float:
    """Mean of the colour's three channels."""
    colour = browser.execute_script(f"return getComputedStyle(document.querySelector('{element}')).{what}")
    return float(np.mean([float(c) for c in colour.strip("rgba()").split(",")[:3]]))


def requests(browser: Chrome) -> list[str]:
    """Addresses that the page asked for since the log was emptied."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent: list[dict[str, Any]] = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [m["request"]["url"] for m in sent]


def test_it_draws_every_chart_and_asks_nobody(show: Callable[..., Chrome], page: Path) -> None:
    browser = show()
    assert len(browser.find_elements("css selector", ".plot svg")) == 2 + 2 * (3 + 7)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert [url for url in requests(browser) if not url.startswith("data:")] == [page.as_uri()]
    # Nor could it ask, or run a script that is not its own.
    asked = browser.execute_async_script(
        "const done = arguments[0]; fetch('https://example.org').then(() => done('answered'), () => done('refused'))"
    )
    ran = browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s);"
        "return window.ran || 0"
    )
    assert (asked, ran) == ("refused", 0)


@pytest.mark.parametrize("width", [400, 1200])
def test_it_fits_the_screen(show: Callable[..., Chrome], width: int) -> None:
    browser = show(width)
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    scroll, client = browser.execute_script("const e = document.documentElement; return [e.scrollWidth, e.clientWidth]")
    assert scroll <= client <= width


def test_dark_and_light(show: Callable[..., Chrome]) -> None:
    browser = show()
    assert luminance(browser, "body", "backgroundColor") > 200 > 100 > luminance(browser, "body", "color")
    title = ".plot svg .role-axis-title text"
    light = luminance(browser, title, "fill")
    set_theme(browser, dark=True)  # while the page is open: its charts follow
    assert luminance(browser, "body", "backgroundColor") < 60 < 150 < luminance(browser, "body", "color")
    WebDriverWait(browser, 20).until(lambda b: luminance(b, title, "fill") > light + 100)


def test_names_that_are_code_stay_text(show: Callable[..., Chrome]) -> None:
    browser = show()
    browser.execute_script("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", ".sample img"))
    assert browser.title.startswith("Comparison on toy <img")
    assert browser.find_elements("css selector", "img[src=x]") == []
    assert EVIL in browser.execute_script("return document.querySelector('.sample').textContent")
    assert EVIL in browser.execute_script("return document.querySelector('.headline').textContent")
    assert browser.execute_script("return document.querySelector('.sample img').naturalWidth") == 1
    # A tooltip is made of HTML: pass over a point of the curve whose strategy has that name.
    point = browser.find_elements("css selector", "#d0 .plot")[0].find_elements("css selector", ".mark-symbol path")[-2]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(browser).move_to_element(point).perform()
    WebDriverWait(browser, 20).until(lambda b: b.find_elements("css selector", "#vg-tooltip-element.visible"))
    assert EVIL in browser.find_element("css selector", "#vg-tooltip-element").text
    assert browser.find_elements("css selector", "#vg-tooltip-element img, #vg-tooltip-element script") == []
    assert browser.title.startswith("Comparison on toy <img")


def test_a_pressed_name_stands_out(show: Callable[..., Chrome]) -> None:
    browser = show()

    def strong_lines() -> int:
        return browser.execute_script(
            "return [...document.querySelectorAll('#d0 .plot')][0].querySelectorAll("
            "\"svg .mark-line path[stroke-opacity='1'], svg .mark-line path:not([stroke-opacity])\").length"
        )

    assert strong_lines() == 2  # the policy and random
    chip = browser.find_elements("css selector", "#d0 .chip")[4]
    browser.execute_script("arguments[0].click()", chip)
    WebDriverWait(browser, 10).until(lambda _: strong_lines() == 1)
    assert chip.get_attribute("aria-pressed") == "true"
    browser.execute_script("arguments[0].click()", chip)
    WebDriverWait(browser, 10).until(lambda _: strong_lines() == 2)
