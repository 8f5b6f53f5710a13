"""Calibrations in the background as a person meets them in the page: the tab, the offer to resume,
toasts, commands; with the mouse and with the keyboard, in one browser and in two."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from .background_runs import (  # the fixtures for every test here
    begin,
    card,
    complaints,  # noqa: F401
    no_runs_left,  # noqa: F401
    wait_for_images,
)
from .canvas import choose_setting, open_page, set_widgets

if TYPE_CHECKING:
    from comfy_server import ComfyServer

PACK = "comfyui-calibri"
OFFER = "Calibri.Runs.OfferToResume"


def test_a_run_from_its_workflow_to_its_preset(
    page: Page,
    complaints: list[str],  # noqa: F811
) -> None:
    run = begin(page, "whole")
    expect(run).to_contain_text("Running")
    # Progress and gain come without anything being pressed.
    images = run.get_by_role("progressbar")
    wait_for_images(page, images, 1)
    expect(run).to_contain_text("gain", ignore_case=True)

    # With the keyboard; the focus stays on the card when its button goes.
    run.get_by_role("button", name="Pause whole").press("Enter")
    expect(run).to_contain_text("Paused")
    expect(run.get_by_role("button", name="Resume whole")).to_be_focused()

    page.reload()
    offer = page.get_by_role("dialog", name="Calibrations to go on with")
    expect(offer).to_contain_text("whole")
    offer.get_by_role("button", name="Resume whole").click()
    expect(offer).to_be_hidden()
    run = card(page, "whole")
    expect(run).to_contain_text("Running")

    run.get_by_role("button", name="Finish whole").click()
    expect(run).to_contain_text("Finished")
    expect(page.get_by_role("alert").filter(has_text="“whole” is finished")).to_be_visible()
    expect(run).to_contain_text("Preset: whole.safetensors")
    assert complaints == []


def test_later_lasts_until_the_run_has_worked_again(page: Page) -> None:
    run = begin(page, "delayed")
    run.get_by_role("button", name="Pause delayed").click()
    expect(run).to_contain_text("Paused")
    offer = page.get_by_role("dialog", name="Calibrations to go on with")
    expect(offer).to_be_hidden()  # to whom has just paused it
    page.reload()
    offer.get_by_role("button", name="Later", exact=True).click()
    expect(offer).to_be_hidden()
    page.reload()
    run = card(page, "delayed")
    expect(run).to_contain_text("Paused")
    expect(offer).to_be_hidden()

    images = run.get_by_role("progressbar")
    more = 1 + images.evaluate("bar => bar.value")
    run.get_by_role("button", name="Resume delayed").click()
    wait_for_images(page, images, more)
    run.get_by_role("button", name="Pause delayed").click()
    expect(run).to_contain_text("Paused")
    choose_setting(page, OFFER, False)
    page.reload()
    run = card(page, "delayed")
    expect(run).to_contain_text("Paused")
    expect(offer).to_be_hidden()
    choose_setting(page, OFFER, True)
    page.reload()
    expect(offer).to_contain_text("delayed")


def test_two_browsers_agree(page: Page, browser: Browser, server: ComfyServer) -> None:
    here = begin(page, "shared")
    expect(here).to_contain_text("Running")
    with open_page(browser, server) as other:
        there = card(other, "shared")
        expect(there).to_contain_text("Running")
        here.get_by_role("button", name="Pause shared").click()
        expect(there).to_contain_text("Paused")
        there.get_by_role("button", name="Resume shared").click()
        expect(here).to_contain_text("Running")

        there.get_by_role("button", name="Delete shared").click()
        dialog = other.get_by_role("dialog").filter(has_text="Delete a calibration")
        dialog.get_by_role("button", name="Cancel").click()
        expect(there).to_be_visible()
        there.get_by_role("button", name="Delete shared").click()
        dialog.get_by_role("button", name="Delete").click()
        expect(there).to_have_count(0)
        expect(here).to_have_count(0)


def test_an_answer_that_comes_late_is_no_news(page: Page) -> None:
    """The list that the tab asks for when it opens may arrive after an event that is newer."""
    run = begin(page, "late")
    expect(run).to_contain_text("Running")
    page.get_by_role("button", name="Calibrations: running and past").click()
    expect(run).to_be_hidden()
    held: list[tuple[Route, APIResponse]] = []
    page.route(re.compile(r"/calibri/runs$"), lambda route: held.append((route, route.fetch())))
    with page.expect_request(re.compile(r"/calibri/runs$")):
        page.get_by_role("button", name="Calibrations: running and past").click()
    run.get_by_role("button", name="Pause late").click()
    expect(run).to_contain_text("Paused")
    page.wait_for_timeout(2000)  # its slice has ended and nothing more is told
    (route, answer), *_ = held  # an open tab asks again now and then
    assert [each["state"] for each in answer.json()["runs"]] == ["running"]
    with page.expect_event("requestfinished", lambda request: request.url.endswith("/runs")):
        route.fulfill(response=answer)
    page.wait_for_timeout(500)  # the page has read it
    expect(run).to_contain_text("Paused", timeout=1)


def test_run_on_change_does_not_wait_for_the_end_of_a_slice(page: Page) -> None:
    run = begin(page, "endless", slice_seconds=86_400)
    wait_for_images(page, run.get_by_role("progressbar"), 1)
    page.evaluate("() => { app.extensionManager.queueSettings.mode = 'change' }")
    prompt, room = re.compile(r"/prompt$"), re.compile(r"/make-room$")
    with page.expect_request(prompt), page.expect_request(room):
        set_widgets(page, "EmptySD3LatentImage", batch_size=2)
        page.mouse.click(800, 990)  # the page sees what has changed when a click ends
    expect(run).to_contain_text("Running")


def test_commands_act_on_the_one_run_there_is(page: Page) -> None:
    def execute(verb: str) -> None:
        page.evaluate("name => app.extensionManager.command.execute(name)", f"Calibri.{verb}Run")

    def toast(words: str) -> Locator:
        return page.get_by_role("alert").filter(has_text=words)

    execute("Pause")
    expect(toast("No calibration is running")).to_be_visible()
    run = begin(page, "commanded")
    expect(run).to_contain_text("Running")

    refusal = {"error": "The model has changed: steps is 4 and was 15."}
    paths = re.compile(r"/calibri/runs/commanded/pause")
    page.route(paths, lambda route: route.fulfill(status=409, json=refusal))
    execute("Pause")
    expect(toast("steps is 4 and was 15")).to_be_visible()
    expect(run).to_contain_text("Running")
    page.unroute(paths)

    execute("Pause")
    expect(run).to_contain_text("Paused")
    execute("Stop")
    expect(run).to_contain_text("Stopped")
    expect(toast("“commanded” is stopped")).to_be_visible()
    commands = page.evaluate("() => app.extensionManager.command.commands.map(each => each.label)")
    verbs = ("Pause", "Resume", "Finish", "Stop")
    assert {f"Calibri: {verb} the calibration" for verb in verbs} <= set(commands)


def test_numbers_are_words_that_fit_a_card(page: Page) -> None:
    def say(function: str, value: object, module: str = "runs/words.js") -> object:
        module = f"/extensions/{PACK}/{module}"
        return page.evaluate(f"async value => (await import({module!r})).{function}(value)", value)

    lengths = {0: "0 s", 59: "59 s", 3600: "1 h", 3725: "1 h 2 min", 90000: "1 d 1 h"}
    assert {seconds: say("duration", seconds, "numbers.js") for seconds in lengths} == lengths
    run = {"state": "running", "plain": -1.09, "reward": -0.82, "images": 1234, "total": 9728}
    gain = {"mean": 0.27, "low": -0.02, "high": 0.39}
    assert say("gainWords", {**run, "gain": gain}) == "Gain +0.27 [−0.02, +0.39]: −1.09 → −0.82"
    assert say("gainWords", {**run, "gain": None}) == ""
    nothing = {"mean": 0, "low": 0, "high": 0}
    assert say("gainWords", {**run, "gain": nothing}) == "No gain yet"
    assert say("workWords", {**run, "seconds_left": None}) == "1,234 of 9,728 images"
    ended = {**run, "state": "finished", "seconds": 61}
    assert say("workWords", ended) == "1,234 images, 1 min 1 s of work"
