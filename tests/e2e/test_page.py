"""The platform's page, looked at in headless Chromium: offline, live, safe from what devices call themselves, accessible."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import missing_service
from tests.platforms import Platform, thing

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
_NASTY = "School <img src=x onerror=\"document.title='owned'\">"
_PLACES = {"Harbour": (24.95, 60.16), _NASTY: (25.3, 60.3)}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = shutil.which("chromedriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if driver is None or chromium is None:
        missing_service("Chromium with its driver", "apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium or ""
    for flag in _FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two nodes, one of a hostile name; thirty readings in the first Datastream, the last a minute ago."""
    running = Platform(tmp_path_factory.mktemp("platform")).start()
    for name, place in _PLACES.items():
        body = thing(name, datastreams=2)
        body["Locations"][0]["location"]["coordinates"] = list(place)
        running.create("Things", body)
    _deliver(running, 1, [20 + n / 10 for n in range(30)], ago=60 * 30)
    yield running
    running.close()


def _deliver(platform: Platform, stream: int, results: list[Any], ago: float = 0) -> None:
    """Results a minute apart, the first of them `ago` seconds ago."""
    first = time.time() - ago
    rows = [
        [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(first + n * 60)), each]
        for n, each in enumerate(results)
    ]
    body = [
        {"Datastream": {"@iot.id": stream}, "components": ["phenomenonTime", "result"], "dataArray": rows}
    ]
    assert "error" not in platform.post("CreateObservations", body).text


def _view(browser: webdriver.Chrome, width: int = 1280, height: int = 800, *, dark: bool = False) -> None:
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.fixture
def page(browser: webdriver.Chrome, platform: Platform) -> webdriver.Chrome:
    """The page, loaded and live. The browser's logs begin with it."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    _view(browser)
    browser.get(platform.page)
    _await(browser, lambda: len(browser.find_elements(By.CSS_SELECTOR, ".node")) == 2)
    _await(browser, lambda: browser.find_element(By.ID, "connection").text == "Live")
    _await(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#chart svg"))
    return browser


def _await(browser: webdriver.Chrome, condition: Callable[[], Any]) -> None:
    WebDriverWait(browser, 15, poll_frequency=0.05).until(lambda _: condition())


def _values(page: webdriver.Chrome) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, ".readings .value")]


def test_nodes_stand_in_the_list_and_on_the_map(page: webdriver.Chrome) -> None:
    assert [each.text for each in page.find_elements(By.CSS_SELECTOR, ".node h3")] == list(_PLACES)
    pins = page.find_elements(By.CSS_SELECTOR, ".pin")
    assert {pin.get_attribute("aria-label") for pin in pins} == {
        "Harbour: 22.9\u202f°C",
        f"{_NASTY}: no reading",
    }
    shown = page.find_element(By.ID, "map").rect
    for pin in page.find_elements(By.CSS_SELECTOR, ".pin-body"):
        assert shown["x"] < pin.rect["x"] < shown["x"] + shown["width"] - pin.rect["width"]
        assert shown["y"] < pin.rect["y"] < shown["y"] + shown["height"] - pin.rect["height"]
    harbour, school = (pin.location["x"] for pin in pins)
    assert harbour < school, "east is to the right"
    assert page.find_elements(By.CSS_SELECTOR, "path.land[d]"), "the outlines are drawn"
    assert _values(page)[0] == "22.9"
    assert page.find_element(By.CSS_SELECTOR, ".readings .unit").text == "°C"
    assert page.find_element(By.CSS_SELECTOR, ".age").text.startswith("as of")


def test_readings_appear_as_they_arrive(page: webdriver.Chrome, platform: Platform) -> None:
    _deliver(platform, 1, [31.25])
    _await(page, lambda: _values(page)[0] == "31.25")
    _await(page, lambda: "31.25" in page.find_element(By.ID, "history-value").text)
    _await(page, lambda: "31.25" in page.find_element(By.CSS_SELECTOR, ".pin-value").text)
    # An older reading that comes late is no news.
    _deliver(platform, 1, [-5], ago=3600)
    _deliver(platform, 2, [44])
    _await(page, lambda: _values(page)[1] == "44")
    assert _values(page)[0] == "31.25"


def test_a_new_node_appears_by_itself(page: webdriver.Chrome, platform: Platform) -> None:
    node = platform.create("Things", thing("Weather", location=False))
    stream = platform.get(f"Things({node})/Datastreams")["value"][0]["@iot.id"]
    _deliver(platform, stream, [7])
    _await(page, lambda: "Weather" in page.find_element(By.ID, "nodes").text)
    assert (
        platform.client.delete(f"{platform.url}/Things({node})", headers=platform.headers).status_code == 200
    )


def test_it_finds_the_platform_again_after_a_restart(page: webdriver.Chrome, platform: Platform) -> None:
    platform.restart()
    _await(page, lambda: page.find_element(By.ID, "connection").text == "Live")
    _deliver(platform, 2, [55])
    _await(page, lambda: _values(page)[1] == "55")


def test_names_of_devices_are_text(page: webdriver.Chrome) -> None:
    assert page.title == "Lamppost: readings as they arrive"
    assert not page.find_elements(By.CSS_SELECTOR, "#nodes img, .pin img")
    assert _NASTY in page.find_element(By.ID, "nodes").text


def test_it_needs_no_other_server_and_breaks_no_rule(page: webdriver.Chrome, platform: Platform) -> None:
    requests = [
        entry["message"]
        for entry in page.get_log("performance")
        if "Network.requestWillBeSent" in entry["message"]
    ]
    assert requests
    for message in requests:
        assert '"url":"http' not in message.replace(f'"url":"{platform.page}', ""), message[:300]
    problems = [
        entry["message"] for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]
    assert not problems
    policy = platform.client.get(platform.page).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_keyboard_reaches_a_history(page: webdriver.Chrome) -> None:
    page.execute_script("document.activeElement.blur()")
    seen = []
    for _ in range(15):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        seen.append(focused.get_attribute("class") or focused.tag_name)
        if focused.tag_name == "button" and focused.get_attribute("aria-pressed") == "false":
            break
    assert any("pin" in each for each in seen), seen
    focused.send_keys(Keys.ENTER)
    _await(page, lambda: focused.get_attribute("aria-pressed") == "true")
    _await(page, lambda: "Harbour" in page.find_element(By.ID, "history-title").text)
    assert len(page.find_elements(By.CSS_SELECTOR, "[aria-pressed='true']")) == 1


def test_a_pin_opens_its_nodes_history(page: webdriver.Chrome) -> None:
    pin = next(each for each in page.find_elements(By.CSS_SELECTOR, ".pin-body") if "School" in each.text)
    pin.click()
    _await(page, lambda: "School" in page.find_element(By.ID, "history-title").text)
    assert "No readings yet" in page.find_element(By.ID, "history-note").text


def test_the_list_can_be_searched(page: webdriver.Chrome) -> None:
    page.find_element(By.ID, "find").send_keys("harb")
    shown = [each.text for each in page.find_elements(By.CSS_SELECTOR, ".node h3") if each.is_displayed()]
    assert shown == ["Harbour"]


_CONTRAST = """
const light = (channel) => (channel /= 255) <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
const luminance = (color) => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number); return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b); };
const ground = (element) => { for (; element; element = element.parentElement) { const color = getComputedStyle(element).backgroundColor;
  if (!/^rgba\\(.*, 0\\)$/.test(color)) return color; } return "rgb(255, 255, 255)"; };
const found = [];
for (const element of document.querySelectorAll("h1, h2, h3, p, a, button, th, td, span, summary, label")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || !element.offsetParent || element.closest(".unseen, .skip")) continue;
  const [high, low] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => b - a);
  const ratio = (high + 0.05) / (low + 0.05);
  if (ratio < 4.5) found.push(`${element.className || element.tagName} ${element.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
}
return found;
"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)], ids=["desk", "phone"])
def test_text_has_contrast_and_fits(
    page: webdriver.Chrome, width: int, height: int, dark: bool, tmp_path: Path
) -> None:
    """WCAG 2.1 AA: contrast of at least 4.5 : 1; nothing to scroll sideways on a phone."""
    _view(page, width, height, dark=dark)
    _await(page, lambda: page.execute_script("return innerWidth") == width)
    # Colours that fade in have arrived when no animation runs.
    _await(page, lambda: page.execute_script("return document.getAnimations().length") == 0)
    assert page.execute_script(_CONTRAST) == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    for element in page.find_elements(By.CSS_SELECTOR, "button, input, a"):
        assert element.accessible_name, element.get_attribute("outerHTML")
    assert page.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    assert page.save_screenshot(str(tmp_path / "page.png"))
