"""A real server with the pack, and the real frontend in a headless Chromium. Skipped, with the reason, without one.

DIFFSTYLER_FRONTEND: the folder of another build of the frontend, called by its version, in place of the host's own.
"""

from __future__ import annotations

import os

import pytest

from tools.devkit.base import PACK
from tools.devkit.chromium import MISSING, find_chromium
from tools.pack_server import pack_server

ARGUMENTS = ("no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update",
             "disable-sync")  # fmt: skip
HARMLESS = (
    "Failed to load resource", "ComfyApp graph accessed before initialization", "net::ERR", "api.comfy.org",
    "Connecting to 'https://huggingface.co", "Fetch API cannot load https://huggingface.co",
    "method 'onNodeOutputsUpdated' {error: TypeError: Cannot read properties of null",
)  # fmt: skip
"""Complaints of the frontend with no pack at all: user.css and the like are missing, the world outside is not there; of
a template's model that is not installed it asks the size, which its own security policy forbids; its own
extensions read the output null that ComfyUI 0.24 sends for a cached node."""
WATCH_DEPRECATIONS = """ours => {
    Error.stackTraceLimit = 50;
    LiteGraph.alwaysRepeatWarnings = true;  // else the frontend's own use of a thing hides ours
    LiteGraph.onDeprecationWarning.push(text => {
        const {stack} = new Error(text);
        if (stack.includes(ours)) console.error(stack);
    });
}"""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    other = os.environ.get("DIFFSTYLER_FRONTEND")
    with pack_server(tmp_path_factory.mktemp("base"), ("--front-end-root", other) if other else ()) as running:
        yield running


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = find_chromium(os.environ)
    if path is None:
        pytest.skip(MISSING)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=[f"--{name}" for name in ARGUMENTS])
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def frontend(browser, server):
    """The page, ready. ``frontend.complaints`` collects errors on its console, and what we use that is deprecated."""
    page = browser.new_page(viewport={"width": 1920, "height": 1200})
    page.set_default_timeout(180_000)
    page.complaints = []
    page.on("console", lambda message: message.type == "error" and page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(server.url)
    page.wait_for_function("!!(window.app?.graph && window.LiteGraph?.registered_node_types?.KSampler)")
    page.wait_for_timeout(2000)
    page.evaluate(WATCH_DEPRECATIONS, f"/extensions/{PACK}/")
    page.keyboard.press("Escape")  # a first visit opens the template browser
    return page


@pytest.fixture
def page(frontend):
    """The page; the test fails when it made the console complain."""
    frontend.complaints.clear()
    yield frontend
    assert [text for text in frontend.complaints if not any(part in text for part in HARMLESS)] == []


@pytest.fixture(params=["classic", "vue"])
def rendering(request, page):
    """Each of the frontend's two ways to draw nodes."""
    page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param == "vue")
    page.wait_for_function("on => LiteGraph.vueNodesMode === on", arg=request.param == "vue")
    yield request.param
    page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")
