"""The explorer and the page of samples in a real Chromium, opened from disk.

Needs Debian's chromium, and playwright to drive it: `make test-browser`.
"""

import json
import shutil

import pytest

from jukejax.evaluation.pages.explorer import make_site, write_site
from jukejax.evaluation.pages.plots import bars
from jukejax.evaluation.pages.report_page import Section, write_report
from jukejax.evaluation.pages.sample_page import write_page
from jukejax.evaluation.results import Figure, Table

pytestmark = pytest.mark.browser

NOW = "document.querySelector('.song .active audio').currentTime"


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("There is no chromium to test pages in: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def local(url):
    return url.startswith(("file:", "data:", "blob:"))


@pytest.fixture
def visit(chromium):
    """visit(path): a page, opened from disk without a network; none may complain."""
    complaints, contexts = [], []

    def open_page(path, width=1280, height=800, shows=".song .active"):
        context = chromium.new_context(viewport={"width": width, "height": height}, offline=True)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: local(request.url) or complaints.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(shows)
        contexts.append(context)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def site(runs, tmp_path_factory):
    return make_site([runs], tmp_path_factory.mktemp("out") / "site")[0]


def seek(page, seconds):
    page.locator("#detail .seek, article .seek").first.evaluate(
        "(bar, to) => { bar.value = to; bar.dispatchEvent(new Event('input')); }", seconds
    )


def choose(page, kind="sample", artist=""):
    page.locator(".row", has_text=artist).filter(has_text=kind).first.click()
    page.wait_for_selector(f"#detail .facts:has-text('{kind}')")


def test_it_plays_seeks_and_switches_in_place(site, visit):
    page = visit(site)
    choose(page, "reconstruction")
    names = [name.lower() for name in page.locator(".pick").all_inner_texts()]
    assert names == ["1 original", "2 top", "3 middle", "4 bottom"]
    assert "bottom" in page.inner_text(".active .pick").lower()
    page.click(".play")
    page.wait_for_function(f"{NOW} > 0.3")
    lane = page.locator(".active .lane")
    width = lane.evaluate("lane => lane.clientWidth")
    lane.click(position={"x": width / 2, "y": 20})
    # 4 seconds are as wide as the lane, and a click is on a whole pixel
    assert 2.0 - 4 / width <= page.evaluate(NOW) < 2.4
    for key, name in (("1", "original"), ("3", "middle"), ("4", "bottom")):
        # what is heard when the key is pressed, and what is heard after
        before, after = page.evaluate(
            f"""key => {{
              const before = {NOW};
              document.body.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true }}));
              return [before, {NOW}];
            }}""",
            key,
        )
        assert abs(after - before) < 0.05
        assert name in page.inner_text(".active .pick").lower()
        assert (
            page.evaluate("[...document.querySelectorAll('audio')].filter(a => !a.paused).length")
            == 1
        )
        page.wait_for_function(f"{NOW} > {after + 0.05}")
    page.click(".play")
    assert page.evaluate("[...document.querySelectorAll('audio')].every(a => a.paused)")


@pytest.mark.parametrize(
    "seconds, word", [(0.6, "Oh"), (2.0, "darling"), (3.5, "Clementine"), (2.7, None), (0.2, None)]
)
def test_the_word_that_is_sung_is_lit(site, visit, seconds, word):
    page = visit(site)
    choose(page, "220", "The Lanterns")
    seek(page, seconds)
    assert page.locator(".lit").all_inner_texts() == ([word] if word else [])
    playhead = page.locator(".attention i").evaluate("i => i.offsetLeft / i.parentNode.clientWidth")
    assert playhead == pytest.approx(seconds / 4, abs=0.01)


def test_words_light_up_while_it_plays_and_lead_to_their_time(site, visit):
    page = visit(site)
    choose(page, "reconstruction")
    page.click(".words span >> nth=2")
    assert page.evaluate(NOW) == pytest.approx(2.0)
    page.keyboard.press("Space")
    page.wait_for_selector(".lit")
    assert page.inner_text(".lit") == "in"
    page.wait_for_function(f"{NOW} > 2.6")
    assert page.locator(".lit").count() == 0


def test_the_page_of_samples_lights_its_words(make_samples, tmp_path, visit):
    page = visit(write_page(make_samples(tmp_path / "a", [("A", ["jazz"])], aligned=True)))
    for seconds, word in ((0.6, "Oh"), (1.2, "my"), (3.5, "Clementine")):
        seek(page, seconds)
        assert page.locator(".lit").all_inner_texts() == [word]
    assert violations(page) == []


def test_two_thousand_songs_are_filtered_at_once(site, visit, tmp_path):
    text = (site.parent / "index.js").read_text()
    rows = json.loads(text.removeprefix("const INDEX = ").removesuffix(";\n"))
    many = [
        {**rows[i % 4], "id": f"{i:012x}", "artist": f"Artist {i % 50}", "step": 100 * (i % 7),
         "lyrics": ("la " * 66) + f"number{i}"}
        for i in range(2000)
    ]  # fmt: skip
    shutil.copytree(site.parent / "items" / rows[0]["id"], tmp_path / "items" / many[0]["id"])
    script = tmp_path / "items" / many[0]["id"] / "item.js"
    script.write_text(script.read_text().replace(rows[0]["id"], many[0]["id"]))
    page = visit(write_site(tmp_path, many))
    assert page.inner_text("#count") == "2000 of 2000 songs"
    assert page.locator(".row").count() < 60
    timed = """([id, event, value]) => {
      const element = document.getElementById(id), start = performance.now();
      element.value = value;
      element.dispatchEvent(new Event(event));
      document.getElementById("list").getBoundingClientRect();  // lays the list out
      return [performance.now() - start, document.getElementById("count").textContent];
    }"""
    jazz = sum(str(i).startswith("1") for i in range(0, 2000, 2))
    third = sum(i % 50 == 7 and i % 7 == 3 for i in range(2000))
    for id, event, value, count in (
        ("search", "input", "number19", 1 + 10 + 100),
        ("search", "input", "jazz number1", jazz),
        ("search", "input", "nothing of the kind", 0),
        ("search", "input", "", 2000),
        ("by-artist", "change", "Artist 7", 40),
        ("by-step", "change", "300", third),
    ):
        milliseconds, shown = page.evaluate(timed, [id, event, value])
        assert shown == f"{count} of 2000 songs"
        print(f"filtered 2,000 songs by {value!r} in {milliseconds:.1f} ms")
        assert milliseconds < 100
    page.select_option("#by-artist", "")
    page.select_option("#by-step", "")
    page.locator("#list").evaluate("list => list.scrollTop = list.scrollHeight")
    page.wait_for_selector("#row-0000000007cf")
    assert page.locator(".row").count() < 60


def test_filters_by_genre_model_step_and_kind(site, visit):
    page = visit(site)
    for facet, value, count in (
        ("genre", "pop", 2), ("model", "other", 2), ("step", "100", 2), ("kind", "sample", 4),
    ):  # fmt: skip
        page.select_option(f"#by-{facet}", value)
        assert page.inner_text("#count") == f"{count} of 6 songs"
        page.select_option(f"#by-{facet}", "")


def test_everything_goes_with_a_keyboard(site, visit):
    page = visit(site)
    first = page.inner_text("#detail h2")
    page.keyboard.press("/")
    page.keyboard.type("1 lanterns n")  # typed, not obeyed
    assert page.input_value("#search") == "1 lanterns n"
    page.fill("#search", "")
    for _ in range(6):  # the five selects and the list
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("End")
    page.wait_for_selector("#detail .facts:has-text('cavern')")
    page.keyboard.press("p")
    page.wait_for_selector("#detail .facts:has-text('clementine')")
    page.keyboard.press("Space")
    page.wait_for_function(f"{NOW} > 0.1")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(NOW) == pytest.approx(4.0)
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(NOW) == 0.0
    page.keyboard.press("Home")
    page.wait_for_function("t => document.querySelector('#detail h2').innerText === t", arg=first)


def test_a_blind_test_stores_ratings_and_computes_the_preference(site, visit):
    page = visit(site)
    page.click("#to-blind")
    page.select_option("#side-x", "original")
    page.select_option("#side-y", "reconstruction, top, runs/demo/model, step 100")
    assert page.inner_text("#pairs") == "2 pairs"
    page.click("text=Start")
    for choice in ("a", "s"):
        page.wait_for_selector("#trial .song:not(:has(.rate.open))")
        page.keyboard.press(choice)  # too early: nothing was heard
        volumes = page.locator("#trial audio").evaluate_all("all => all.map(a => a.volume)")
        assert sorted(volumes) == [pytest.approx(0.25, rel=1e-3), 1.0]  # amplitudes 0.05 and 0.2
        page.keyboard.press("Space")
        page.keyboard.press("2")
        page.wait_for_selector("#trial .rate.open")
        played = page.locator("#trial audio").first.get_attribute("src")
        if choice == "a":
            better = "original" if "original" in played else "reconstruction"
        page.keyboard.press(choice)
    page.wait_for_selector("#trial:has-text('No more pairs')")
    page.reload()
    page.click("#to-blind")
    cells = page.locator("#results td").all_inner_texts()
    won = ["1", "0"] if better == "original" else ["0", "1"]
    assert cells[0] == "original" and cells[2:5] == [*won, "1"]
    with page.expect_download() as download:
        page.click("#export")
    found = json.loads(download.value.path().read_text())
    assert len(found["ratings"]) == 2 and found["ratings"][1]["preferred"] is None
    assert found["ratings"][0]["preferred"].startswith(better)
    assert found["preferences"][0]["preference"] == float(better == "original")
    assert "Wilson" in found["formula"]
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#forget")
    assert page.inner_text("#results") == "No ratings yet."


def test_the_interval_is_wilsons(site, visit):
    from scipy.stats import binomtest

    page = visit(site)
    for wins, n in ((0, 1), (1, 1), (7, 10), (0, 20), (33, 50), (500, 1000)):
        interval = binomtest(wins, n).proportion_ci(method="wilson")
        assert page.evaluate("([k, n]) => Blind.wilson(k, n)", [wins, n]) == pytest.approx(
            list(interval), abs=1e-6
        )


def test_a_phone_scrolls_one_way_only(site, visit):
    page = visit(site, width=360, height=740)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    page.locator(".row").nth(1).click()
    page.wait_for_selector("#detail .song .active")
    assert page.evaluate(width) == 360 and page.evaluate("scrollY") > 0
    page.click("#to-blind")
    page.select_option("#side-x", "original")
    page.click("text=Start")
    page.wait_for_selector("#trial")
    assert page.evaluate(width) == 360


@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_accessible(site, visit, width):
    page = visit(site, width=width)
    choose(page, "220", "The Lanterns")
    seek(page, 2.0)
    page.click("text=job.json >> nth=0")
    assert violations(page) == []
    page.click("#to-blind")
    page.select_option("#side-x", "original")
    page.click("text=Start")
    page.wait_for_selector("#trial .song")
    assert violations(page) == []


def test_a_report_is_accessible_and_fits_a_phone(visit, tmp_path):
    table = Table("Bits: lower is better.", ("", "bits"), [("prior", "7.1"), ("a name" * 40, "8")])
    figure = Figure("Bars", "Lower is better.", bars([("prior", 7.1, None)], "bits"))
    facts = [("model", "/somewhere")]
    section = Section("one", "One", "What is asked.", facts, [table], [figure])
    path = write_report(tmp_path, "A report", [section, section._replace(name="two", title="Two")])
    page = visit(path, width=375, shows="table")
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.locator("figure img").first.evaluate("picture => picture.naturalWidth") > 0


def violations(page):
    """What axe-core finds."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]
