"""The page in a real browser, where the machine has Chromium; what needs none is tested everywhere."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from janus_r1 import load_chain
from janus_r1.api import JanusR1
from janus_r1.chain import Settings
from janus_r1.errors import UserError
from janus_r1.serve.runs import Runs, as_command, as_python
from janus_r1.serve.timeline import Story, timeline
from serve_house import PROMPT, picture, png, serving, severe, start

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Remembers how many drafts were to be seen, whenever that changed.
WATCH = """() => { window.counts = []; const look = () => {
  const n = document.querySelectorAll('#create-timeline img.draft').length;
  if (n && window.counts.at(-1) !== n) window.counts.push(n); };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true}); }"""
DONE = "id => document.querySelector(id)?.innerText.includes('done:')"
NARROW = "() => document.documentElement.scrollWidth <= window.innerWidth"


BREATH = 0.3  # seconds between drafts: two that come at once are shown at once


@pytest.fixture(scope="module")
def model(tiny_folder) -> JanusR1:
    model = severe(JanusR1.from_pretrained(str(tiny_folder)))
    decode = model.model.decode_image

    def slowly(*args, **options):
        time.sleep(BREATH)
        return decode(*args, **options)

    model.model.decode_image = slowly
    return model


@pytest.fixture(scope="module")
def running(model, tmp_path_factory):
    gallery = tmp_path_factory.mktemp("gallery") / "chains"

    def mount(app, house):
        pytest.importorskip("gradio")
        from janus_r1.serve.page import mount

        mount(app, house, gallery)

    with serving(model, mount=mount) as house:
        house.gallery = gallery
        yield house


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install the package chromium to drive the page in a browser")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        profile = str(tmp_path_factory.mktemp("profile"))
        options = {"executable_path": CHROMIUM, "headless": True, "args": FLAGS, "timeout": 60_000}
        context = playwright.chromium.launch_persistent_context(profile, **options)
        context.set_default_timeout(60_000)
        yield context
        context.close()


@pytest.fixture
def page(browser, running):
    """A new tab on the page, and the addresses outside of the server that it asked for."""
    tab = browser.new_page()
    urls: list[str] = []
    tab.on("request", lambda request: urls.append(request.url))
    tab.goto(running.address)
    tab.wait_for_selector("#prompt textarea")
    yield tab
    assert all(url.startswith((running.address, "data:", "blob:")) for url in urls)
    tab.close()


def shot(tab, name: str) -> None:
    """A picture of the page, where somebody wants to look at it."""
    if folder := os.environ.get("JANUS_R1_SCREENSHOTS"):
        tab.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def test_a_chain_is_seen_to_grow_and_is_gone_on_with(page, running, model):
    seed = 11
    page.get_by_role("button", name="Settings").first.click()
    page.get_by_label("Seed (-1: by lot)").first.fill(str(seed))
    page.evaluate(WATCH)
    page.fill("#prompt textarea", PROMPT)
    page.press("#prompt textarea", "Enter")
    page.wait_for_function(DONE, arg="#create-timeline")
    assert page.evaluate("window.counts") == [1, 2]
    chain = model.generate(PROMPT, seed=seed, rounds=2)[0]
    text = page.inner_text("#create-timeline")
    assert f"seed {seed}" in text and text.count("p_yes") == 2
    assert f"p_yes {chain.rounds[0].verdict.p_yes:.2f}" in text and "pixels changed" in text
    shot(page, "create")
    page.click("#create-keep")
    page.wait_for_selector("text=Kept in the gallery as")
    (kept,) = (path for path in running.gallery.iterdir() if path.is_dir())
    assert [item.ids for item in load_chain(kept).rounds] == [item.ids for item in chain.rounds]
    page.click("#create-again")
    page.wait_for_function(
        f"() => document.querySelector('#create-timeline').innerText.includes('seed {seed}') === false"
    )
    page.wait_for_function(DONE, arg="#create-timeline")
    page.get_by_role("tab", name="Gallery").click()
    page.get_by_role("button", name="Look again").click()
    page.click("#saved input")
    page.get_by_role("option", name=kept.name).click()
    page.wait_for_selector("#saved-timeline img.draft")
    assert f"seed {seed}" in page.inner_text("#saved-timeline")


def test_an_uploaded_picture_is_edited_and_judged(page, tmp_path):
    (tmp_path / "source.png").write_bytes(png(picture(80)))
    page.get_by_role("tab", name="Edit").click()
    page.set_input_files("input[type=file]", str(tmp_path / "source.png"))
    page.fill("#instruction textarea", "make it red")
    page.wait_for_selector(".image-frame img, img[alt='']", state="attached")
    page.click("#edit-go")
    page.wait_for_function(DONE, arg="#edit-timeline")
    assert page.locator("#edit-timeline img").count() >= 3  # the source, a draft, and what it changed
    shot(page, "edit")
    page.get_by_role("tab", name="Judge").click()
    page.locator("input[type=file]").last.set_input_files(str(tmp_path / "source.png"))
    page.fill("#claim textarea", PROMPT)
    page.wait_for_timeout(500)
    page.click("#judge-go")
    page.wait_for_selector("#judge-verdict .word")
    assert "p_yes" in page.inner_text("#judge-verdict")
    shot(page, "judge")


def test_mistakes_are_told_and_visitors_are_apart(page, browser, running):
    page.click("#create-go")
    page.wait_for_selector("text=prompt")  # a toast says what is wrong with it
    page.wait_for_function("() => document.body.innerText.includes('prompt:')")
    other = browser.new_page()
    other.set_viewport_size({"width": 390, "height": 800})
    other.goto(f"{running.address}/page/?__theme=dark")
    other.wait_for_selector("#prompt textarea")
    assert other.locator("#create-timeline img").count() == 0
    assert other.evaluate(NARROW) and other.evaluate("() => document.body.classList.contains('dark')")
    other.fill("#prompt textarea", PROMPT)
    other.press("#prompt textarea", "Enter")
    other.wait_for_function(DONE, arg="#create-timeline")
    assert other.evaluate(NARROW)
    shot(other, "phone")
    assert page.locator("#create-timeline img").count() == 0
    other.close()


# ----------------------------------------------------------------------------------- without a browser


def test_an_open_tab_does_not_keep_the_server_from_ending(model):
    def mount(app, house):
        pytest.importorskip("gradio")
        from janus_r1.serve.page import mount

        mount(app, house, None)

    running = start(model, mount=mount)
    with httpx.stream("GET", f"{running.address}/page/gradio_api/heartbeat/tab", timeout=30) as beat:
        assert beat.status_code == 200 and next(beat.iter_text())
        began = time.monotonic()
        running.stop()
        assert time.monotonic() - began < 10  # its limit, which would cut everything, is 20


def test_an_mcp_client_finds_the_tool_and_draws_with_it(running, model):
    streamable = pytest.importorskip("mcp.client.streamable_http")
    from mcp import ClientSession

    async def call():
        address = f"{running.address}/page/gradio_api/mcp/"
        async with streamable.streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            (tool,) = (await session.list_tools()).tools
            return tool, await session.call_tool(tool.name, {"prompt": PROMPT, "rounds": 2, "seed": 5})

    with ThreadPoolExecutor(1) as aside:  # where a browser has been driven, this thread has a loop that runs
        tool, answer = aside.submit(lambda: asyncio.run(call())).result()
    assert "draw_and_judge" in tool.name and "prompt" in tool.inputSchema["properties"]
    assert not answer.isError
    chain = model.generate(PROMPT, seed=5, rounds=2)[0]
    assert (
        f"{chain.rounds[1].verdict.p_yes:.3f}" in answer.content[0].text and "data:image/png" in answer.content[0].text
    )


def test_what_is_shown_cannot_be_a_script(model):
    chain = model.generate("x", rounds=1)[0]
    object.__setattr__(chain.rounds[0].verdict, "text", "No, <script>alert(1)</script>")
    html = timeline([Story.of(chain)], "<b>status</b>")
    assert "<script" not in html and "<b>status" not in html and "&lt;script&gt;" in html


def test_the_copied_python_draws_the_same_chain(tiny_folder):
    chain = JanusR1.from_pretrained(str(tiny_folder)).generate(
        'a "red" $circle', samples=2, seed=9, rounds=2, guidance=2.0
    )[1]
    code = as_python(chain, str(tiny_folder))
    found: dict = {}
    exec(code, found)  # our own text
    assert [item.ids for item in found["chain"].rounds] == [item.ids for item in chain.rounds]
    command = as_command(chain, "tiny-sft")
    assert command.startswith('janus-r1 generate "a \\"red\\" \\$circle" --model tiny-sft --samples 2')
    assert "--seed 9" in command and "--guidance 2.0" in command


def test_a_gallery_gives_nothing_but_its_chains(model, tmp_path):
    model.generate("x", rounds=1)[0].save(tmp_path / "outside")
    runs = Runs(tmp_path / "gallery")
    run = runs.keep(model.generate("../../etc", rounds=1))
    name = runs.save(run, 1)
    assert (tmp_path / "gallery" / name / "chain.json").is_file() and runs.saved() == [name]
    assert runs.load(name).settings == Settings(rounds=1)
    for other in ("../outside", "", ".", f"{name}/..", "outside"):
        with pytest.raises(UserError):
            runs.load(other)
    with pytest.raises(UserError, match="draw again"):
        runs.chain("unknown", 1)
    with pytest.raises(UserError, match="keeps nothing"):
        without = Runs()
        without.save(without.keep([runs.load(name)]), 1)
