"""The page in a real browser: it does what it says, with pointer and keys, wide and narrow."""

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from headpatch.reports import write
from tests.report import made

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install '.[test]'"
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium found: apt-get install chromium"
)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
READY = "document.documentElement.dataset.ready === 'yes'"
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
HOSTILE = '</script><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&amp;'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of everything, one of a single pair, and one in strangers' words."""
    root = tmp_path_factory.mktemp("pages")
    made.everything(root / "whole")
    made.rank(root / "pair")
    made.sweep(root / "pair/sweep")
    study = {"question": HOSTILE, "region": HOSTILE, "claims": [HOSTILE]}
    made.rank(root / "hostile", answer=HOSTILE, study=study)
    made.trace(root / "hostile/trace", [HOSTILE, "b"])
    made.claims(root / "hostile/claims", HOSTILE)
    made.rollout(root / "hostile/rollout", HOSTILE, HOSTILE)
    for verb in ("trace", "claims", "rollout"):
        made.run_yaml(root / "hostile" / verb, study)
    return {
        name: write(root / name, root / f"{name}.html").path
        for name in ("whole", "pair", "hostile")
    }


class Visits:
    """Opens pages, each once for all tests, and keeps whatever goes wrong or out meanwhile."""

    def __init__(self, browser: Any, pages: dict[str, Path]) -> None:
        self.trouble: list[str] = []
        self._browser, self._pages, self._open = browser, pages, {}

    def __call__(self, name: str, script: str = "", wait: bool = True, **options: Any) -> Any:
        key = name, script, repr(options)
        if key not in self._open:
            given = {"viewport": WIDE, "color_scheme": "light", "reduced_motion": "reduce"}
            context = self._browser.new_context(**given | options)
            context.grant_permissions(["clipboard-read", "clipboard-write"])
            page = self._open[key] = context.new_page()
            page.on("console", lambda said: self.trouble.append(f"{said.type}: {said.text}"))
            page.on("pageerror", lambda error: self.trouble.append(str(error)))
            page.on("request", self._watch)
            if script:
                page.add_init_script(script)
            page.goto(self._pages[name].as_uri())
            if wait:
                page.wait_for_function(READY)
        return self._open[key]

    def _watch(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(request.url)


@pytest.fixture(scope="module")
def visits(browser: Any, pages: dict[str, Path]) -> Visits:
    return Visits(browser, pages)


@pytest.fixture
def opened(visits: Visits) -> Iterator[Visits]:
    """Gives pages; nothing may go wrong or go out while they are open."""
    yield visits
    assert visits.trouble == []


def at(page: Any, plot: str, x: float, y: float) -> tuple[float, float]:
    """Return where on the screen a figure's point lies."""
    left, top = page.evaluate(
        """([plot, x, y]) => {
            const node = document.querySelector(plot);
            node.scrollIntoView({block: "center"});
            const {left, top} = node.getBoundingClientRect();
            const {xaxis, yaxis} = node._fullLayout;
            return [left + xaxis._offset + xaxis.d2p(x), top + yaxis._offset + yaxis.d2p(y)];
        }""",
        [plot, x, y],
    )
    return left, top


def click(page: Any, plot: str, x: float, y: float, head: str) -> None:
    """Move to a figure's point, see what it is, and click."""
    page.mouse.move(*at(page, plot, x, y))
    page.wait_for_function(
        "name => document.querySelector('#tip b')?.textContent === `Head ${name}`", arg=head
    )
    page.mouse.down()
    page.mouse.up()


def outlines(page: Any, plot: str) -> list[tuple[float, float]]:
    """Return (layer, head) of the cells that a map outlines."""
    shapes = page.evaluate("plot => document.querySelector(plot).layout.shapes", plot)
    return [(shape["y0"] + 0.5, shape["x0"] + 0.5) for shape in shapes]


def column(page: Any, index: int) -> list[str]:
    cells = page.locator(f"#heads-table tbody tr > :nth-child({index})")
    return [str(text) for text in cells.all_inner_texts()]


def number(text: str) -> float:
    found = re.match(r"[+−-]?[\d.]+(e[−-]?\d+)?", text)
    assert found, text
    return float(found[0].replace("−", "-"))


def overflow(page: Any) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


def test_pointing_at_a_cell_shows_it_in_both_maps(opened: Visits) -> None:
    page = opened("whole")
    page.mouse.move(*at(page, "#map-look", 2, 3))
    page.wait_for_selector("#tip:not([hidden])")
    tip = page.inner_text("#tip")
    assert "Head 3.2" in tip
    assert "attention difference" in tip
    assert re.search(r"effect \+0\.600 \[\+0\.590, \+0\.610\]", tip), tip
    assert re.search("verdict: \\w+", tip)
    for plot in ("#map-look", "#map-effect"):
        assert (3, 2) in outlines(page, plot)
    page.mouse.move(5, 5)
    page.wait_for_selector("#tip", state="hidden")
    assert (3, 2) not in outlines(page, "#map-effect")


RUN_INTO = """selector => [...document.querySelectorAll(".plot.js-plotly-plot")].flatMap(node => {
    const boxes = [...node.querySelectorAll(selector)].map(text => [text, text.getBoundingClientRect()]);
    return boxes.flatMap(([text, a], i) => boxes.slice(i + 1)
        .filter(([, b]) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)
        .map(([other]) => `${node.id}: ${text.textContent} ${other.textContent}`));
})"""  # noqa: E501


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_names_of_points_and_ticks_keep_apart(opened: Visits, size: dict[str, int]) -> None:
    page = opened("whole", viewport=size)
    named = page.locator("#scatter-plot .annotation-text").count()
    assert named >= (4 if size is WIDE else 2)
    assert page.evaluate(RUN_INTO, ".annotation-text") == []
    upright = ".xtick text:not([transform*='rotate(-45'])"
    assert page.evaluate(RUN_INTO, upright) == []
    outside = """() => [...document.querySelectorAll("#scatter-plot .annotation-text")]
        .filter(text => text.getBoundingClientRect().right > innerWidth)
        .map(text => text.textContent)"""
    assert page.evaluate(outside) == []


def test_views_of_one_quantity_share_a_colour_scale(opened: Visits) -> None:
    page = opened("whole")
    scale = (
        "() => ['look', 'effect'].map(name => document.getElementById(`map-${name}`).data[0].zmax)"
    )
    before, most = page.evaluate(scale), page.evaluate("[MOST.look, MOST.effect]")
    assert before == pytest.approx([most[0], most[1] ** 0.5])  # attention is linear
    last = str(page.locator("#choose-effect option").count() - 1)
    smaller = "last => H.effects[last].normalized = H.effects[last].normalized.map(one => one / 10)"
    page.evaluate(smaller, last)  # its cells must then be paler, not its scale shorter
    page.select_option("#choose-effect", last)
    assert page.evaluate(scale) == pytest.approx(before)
    page.evaluate(smaller.replace("/", "*"), last)
    page.select_option("#choose-effect", "0")


def test_a_click_chooses_a_head(opened: Visits) -> None:
    page = opened("pair")

    def drawn() -> str:
        return str(page.evaluate("document.getElementById('overlay-with').toDataURL()"))

    before = drawn()
    click(page, "#map-effect", 2, 3, "3.2")
    page.wait_for_function("document.getElementById('chosen-title').textContent === 'Head 3.2'")
    assert drawn() != before
    rows = page.locator("#chosen-effects tbody tr").all_inner_texts()
    assert rows[0].split("\t") == ["resample, noising", "+0.600", "+4.380"]
    assert len(rows) == 4
    assert "of all" in page.inner_text("#overlay-with-words")
    assert page.get_attribute("#overlay-with", "aria-label").startswith("Attention of head 3.2")
    assert (3, 2) in outlines(page, "#map-look")
    # a point of the scatter is a head, too
    y = page.evaluate("[0.6 ** 0.5, data.heads.looks[0].diff[14]]")
    click(page, "#map-effect", 0, 0, "0.0")
    page.wait_for_function("document.getElementById('chosen-title').textContent === 'Head 0.0'")
    click(page, "#scatter-plot", y[1], y[0], "3.2")
    page.wait_for_function("document.getElementById('chosen-title').textContent === 'Head 3.2'")


def test_another_effect_is_drawn_when_chosen(opened: Visits) -> None:
    page = opened("pair")
    first = page.evaluate("document.getElementById('map-effect').data[0].z[0][0]")
    page.select_option("#choose-effect", label="zero, denoising (sufficient?) · this pair")
    second = page.evaluate("document.getElementById('map-effect').data[0].z[0][0]")
    assert first != second
    title = page.evaluate("document.getElementById('scatter-plot').layout.yaxis.title.text")
    assert title == "effect (zero, denoising)"


def test_the_table_sorts(opened: Visits) -> None:
    page = opened("whole")
    headings = page.locator("#heads-table thead th")
    names = [text.strip() for text in headings.all_inner_texts()]
    assert names[:4] == ["Head", "Verdict", "Place", "Attention diff."]
    assert headings.nth(2).get_attribute("aria-sort") == "ascending"  # at first
    places = [int(text) for text in column(page, 3)]
    assert places == sorted(places)
    index = names.index("Necessity")
    button = headings.nth(index).locator("button")
    button.click()
    shown = [number(text) for text in column(page, index + 1)]
    assert shown == sorted(shown, reverse=True)
    assert headings.nth(index).get_attribute("aria-sort") == "descending"
    assert headings.nth(2).get_attribute("aria-sort") is None
    button.press("Enter")
    shown = [number(text) for text in column(page, index + 1)]
    assert shown == sorted(shown)
    headings.nth(1).locator("button").click()  # verdicts: the strongest first
    assert column(page, 2)[0].strip() == "necessary+sufficient"


def test_the_table_finds(opened: Visits) -> None:
    page = opened("whole")
    find = page.locator("#find")
    find.fill("layer 3")
    assert set(column(page, 1)) == {"3.0", "3.1", "3.2", "3.3"}
    assert page.inner_text("#count") == "4 of 24 heads"
    find.fill("3.2")
    assert column(page, 1) == ["3.2"]
    find.fill("redundant")
    assert [text.strip() for text in column(page, 2)] == ["redundant"]
    find.fill("nothing like it")
    assert column(page, 1) == []
    find.fill("")
    page.select_option("#only", "watches")
    assert [text.strip() for text in column(page, 2)] == ["watches"]
    page.select_option("#only", "")
    assert len(column(page, 1)) == 24
    find.fill("3.2")
    page.click("#heads-table tbody button")
    assert page.inner_text("#chosen-title") == "Head 3.2"


def test_the_keyboard_is_enough(opened: Visits) -> None:
    page = opened("whole")
    page.focus("#map-look")
    layer = int(page.inner_text("#chosen-title").removeprefix("Head ").split(".")[0])
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown" if layer < 5 else "ArrowUp")
    layer += 1 if layer < 5 else -1
    assert page.inner_text("#tip b") == f"Head {layer}.1"
    assert page.inner_text("#spoken").startswith(f"Head {layer}.1: attention difference")
    page.keyboard.press("Enter")
    assert page.inner_text("#chosen-title") == f"Head {layer}.1"
    page.focus("#scatter-plot")
    page.keyboard.press("End")  # attention's first
    page.keyboard.press("Enter")
    rank = page.evaluate("data.heads.looks[0].rank")
    flat = rank.index(1)
    assert page.inner_text("#chosen-title") == f"Head {flat // 4}.{flat % 4}"
    page.focus(".contents summary")
    page.keyboard.press("Enter")
    assert page.locator(".contents nav").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator(".contents nav").is_visible()


def test_what_can_be_reached_has_a_name(opened: Visits) -> None:
    """Every control, figure and picture says what it is."""
    page = opened("whole")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(
            'button, a, input, select, canvas, img, [role=img], [role=application], '
            + '[role=region], [tabindex="0"]')]
            .filter(node => !(node.closest('svg') || node.tagName === 'PRE'))
            .filter(node => {
                const ids = (node.getAttribute('aria-labelledby') || '').split(' ');
                const words = [node.getAttribute('aria-label'), node.alt, node.textContent,
                    node.closest('label') && node.closest('label').textContent,
                    ...ids.map(id => id && document.getElementById(id).textContent)];
                return !words.some(text => text && text.trim());
            }).map(node => node.outerHTML.slice(0, 120))"""
    )
    assert nameless == []
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(node => Number(node.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(node => node.id)")
    own = [one for one in ids if not one.startswith(("clip", "legend", "topdefs", "defs", "g"))]
    assert len(own) == len(set(own))


@pytest.mark.parametrize("name", ["whole", "hostile"])
@pytest.mark.parametrize("options", [{}, {"viewport": NARROW}], ids=["desktop", "phone"])
def test_nothing_runs_over_the_edge(opened: Visits, name: str, options: dict[str, Any]) -> None:
    page = opened(name, **options)
    assert overflow(page) <= 0
    sides = [page.locator(plot).bounding_box() for plot in page_plots(page)]
    assert all(box and box["width"] > 150 and box["height"] > 150 for box in sides)


def page_plots(page: Any) -> list[str]:
    ids = page.evaluate("[...document.querySelectorAll('.plot')].map(node => node.id)")
    return [f"#{one}" for one in ids]


def test_dark_where_it_is_wanted(opened: Visits) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "document.getElementById('map-look').layout.font.color"
    light = opened("pair")
    dark = opened("pair", color_scheme="dark")
    assert light.evaluate(ground) == "rgb(252, 252, 251)"
    assert dark.evaluate(ground) == "rgb(20, 24, 27)"
    assert light.evaluate(ink) == "#1c2126"
    assert dark.evaluate(ink) == "#e7eaec"
    dark.click("#theme")
    assert dark.evaluate(ground) == light.evaluate(ground)
    assert dark.evaluate(ink) == light.evaluate(ink)
    light.click("#theme")
    assert light.evaluate(ground) == "rgb(20, 24, 27)"
    light.click("#theme")


def test_the_command_is_copied(opened: Visits) -> None:
    page = opened("pair")
    page.click("#how .copy >> nth=0")
    page.wait_for_function("document.querySelector('#how .copy').textContent === 'Copied'")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("headpatch rank --config ")


def test_words_of_strangers_do_nothing(opened: Visits) -> None:
    page = opened("hostile")
    assert page.evaluate("window.hacked") is None
    assert page.inner_text("h1") == HOSTILE
    shown = page.evaluate(
        "document.querySelector('#figure-trace-2 .xaxislayer-above text').textContent"
    )
    assert shown == f"{HOSTILE} (No)"
    assert page.locator("#figure-trace-2 img").count() == 0


def test_every_figure_and_picture_is_drawn(opened: Visits) -> None:
    page = opened("whole")
    undrawn = page.evaluate(
        "[...document.querySelectorAll('.plot')].filter(node => !node.querySelector('.main-svg'))"
        ".map(node => node.id)"
    )
    assert undrawn == []
    blank = page.evaluate("[...document.images].filter(one => !one.naturalWidth).length")
    assert blank == 0
    assert page.locator("#rollout image").count() == 2 * (2 * 2)  # pictures, and maps over them


def test_an_old_browser_is_told(opened: Visits) -> None:
    page = opened("pair", script="delete window.DecompressionStream", wait=False)
    assert page.locator("#no-figures").is_visible()
    assert page.locator("#heads-table tbody tr").count() == 24  # the table needs no library


def test_it_prints(opened: Visits) -> None:
    page = opened("pair", color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".bar").is_visible()
    page.emulate_media(media="screen")
