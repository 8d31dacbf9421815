"""The report in a real browser: it sorts, switches arms, fits, fetches nothing, runs no text."""

from __future__ import annotations

import re

import pytest
from made_results import KNN, five_parts, made_arm, made_run, write_metrics

from simsiam_zoo.report.write import write_study_report

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "'\"><img src=http://example.com/x.png onerror=\"document.title='owned'\">",
    "{{ 7 * 7 }} <!-- &lt;b&gt;",
    "a" * 200,
)


@pytest.fixture(scope="session")
def page(tmp_path_factory):
    """The study of the five parts, and arms whose names want to be more than text."""
    folder = tmp_path_factory.mktemp("study")
    results = five_parts(2)
    for number, name in enumerate(HOSTILE):
        runs = [made_run(f"h{number}", seed, 0.5 + number / 50) for seed in range(2)]
        arm = made_arm(name, runs, substitution={name: name}, warnings=[name], part=name)
        arm["differences"] = [[name, name, name]]
        results["arms"].append(arm)
    failed = results["arms"][-1]["runs"][0]
    failed.update(state="failed", error=HOSTILE[0], exit_code=1, verdict=HOSTILE[1])
    results["title"], results["description"] = HOSTILE[0], HOSTILE[2]
    results["notes"], results["stale"] = [HOSTILE[1]], [HOSTILE[2]]
    results["not_run"] = [{"arm": HOSTILE[0], "seed": None, "why": HOSTILE[1]}]
    results["provenance"][HOSTILE[0]] = {HOSTILE[1]: HOSTILE[2]}
    write_metrics(results, folder, epochs=3)
    write_study_report(results, folder)
    return folder / "report.html", results


@pytest.fixture
def opened(browser, page):
    path, results = page
    browser.open(path.as_uri())
    assert browser.evaluate("document.documentElement.dataset.ready") == "true"
    return browser, results


def test_the_page_fetches_nothing_complains_of_nothing_and_shows_text_as_text(opened, page):
    browser, results = opened
    assert browser.trouble() == []
    assert browser.requests() == [page[0].as_uri()]
    assert browser.evaluate("document.title") == HOSTILE[0]
    assert browser.evaluate("document.querySelector('h1').textContent") == HOSTILE[0]
    assert browser.evaluate("document.querySelectorAll('script').length") == 1
    assert browser.evaluate("document.querySelectorAll('img, iframe, object').length") == 0
    names = browser.evaluate(
        "[...document.querySelectorAll('.strips')[0].children].map(e => e"
        ".querySelector('.name').textContent)"
    )
    assert names[:-1] == [arm["label"] for arm in results["arms"]]


def test_the_table_is_sorted_by_its_heads_up_down_and_back(opened):
    browser, results = opened
    study_order = [arm["label"] for arm in results["arms"]]
    by_knn = sorted(results["arms"], key=lambda a: -a["summary"]["metrics"][KNN]["mean"])
    falling = [arm["label"] for arm in by_knn]
    first = "document.querySelectorAll('#arms > .scroll tbody th')"
    rows = f"[...{first}].map(e => e.firstChild.textContent)"
    head = "document.querySelector('.sortable th[data-column=\"2\"] button')"
    state = f"{head}.parentElement.getAttribute('aria-sort')"
    assert browser.evaluate(rows) == study_order
    browser.evaluate(f"{head}.click()")
    assert (browser.evaluate(state), browser.evaluate(rows)) == ("descending", falling)
    browser.evaluate(f"{head}.click()")
    assert (browser.evaluate(state), browser.evaluate(rows)) == ("ascending", falling[::-1])
    browser.evaluate(f"{head}.click()")
    assert (browser.evaluate(state), browser.evaluate(rows)) == (None, study_order)

    paper = "document.querySelector('.sortable th[data-column=\"5\"] button')"
    browser.evaluate(f"{paper}.click(); {paper}.click()")  # rising: rows without a figure last
    stated = sorted((a["paper"], a["label"]) for a in results["arms"] if a["paper"] is not None)
    found = browser.evaluate(rows)
    figures = {arm["label"]: arm["paper"] for arm in results["arms"]}
    assert [figures[label] for label in found[: len(stated)]] == [figure for figure, _ in stated]
    assert all(figures[label] is None for label in found[len(stated) :])

    browser.evaluate("document.querySelector('.sortable th[data-column=\"0\"] button').focus()")
    browser.evaluate("document.activeElement.click()")
    assert browser.evaluate(rows) == browser.evaluate(
        f"{rows}.sort((a, b) => a.localeCompare(b, 'en', {{ numeric: true }}))"
    )


def test_arms_are_switched_by_box_and_button_and_values_are_told_to_the_keyboard(opened):
    browser, results = opened
    drawn = len(results["arms"])
    shown = (
        "new Set([...document.querySelectorAll('#curves .arm')].filter(e => getComputedStyle(e)"
        ".display !== 'none').map(e => e.dataset.arm)).size"
    )
    boxes = "document.querySelectorAll('input[data-arm]')"
    assert browser.evaluate(shown) == drawn
    browser.evaluate(f"{boxes}[1].click()")
    assert browser.evaluate(shown) == drawn - 1
    hidden = "getComputedStyle(document.querySelector('#curves .arm[data-arm=\"1\"]')).display"
    assert browser.evaluate(hidden) == "none"
    for which, count in (("none", 0), ("0", 1), ("all", drawn)):
        browser.evaluate(f"document.querySelector('button[data-show=\"{which}\"]').click()")
        assert browser.evaluate(shown) == count
        assert browser.evaluate(f"[...{boxes}].filter(e => e.checked).length") == count

    browser.evaluate(f"{boxes}[2].focus()")
    assert browser.evaluate("document.querySelectorAll('#curves .on:not(.at-end)').length") == 3
    browser.press("Tab")
    assert browser.evaluate(f"[...{boxes}].indexOf(document.activeElement)") == 3

    browser.evaluate("document.querySelector('button[data-show=\"0\"]').click()")
    browser.evaluate("document.querySelector('#curves .chart').focus()")
    browser.press("ArrowLeft")
    reading = browser.evaluate("document.querySelector('#curves .reading').textContent")
    assert re.fullmatch(r"base: SimSiam, seed 0, epoch 2.9\d*: −0\.[89]\d*", reading)
    assert browser.trouble() == []


def test_a_chart_names_its_lines_has_levels_and_is_enlarged_by_a_click(opened):
    browser, _ = opened
    chart = "document.querySelector('#figure-2 figure:last-child .chart')"
    ends = f"[...{chart}.querySelectorAll('.at-end text')].map(e => e.textContent)"
    assert sorted(browser.evaluate(ends)) == ["base: SimSiam", "gradient: none"]
    levels = f"[...{chart}.querySelectorAll('.level text')].map(e => e.textContent)"
    assert sorted(browser.evaluate(levels)) == ["raw pixels", "untrained"]
    # Raw pixels have 94.5 %: as far up the axis as that.
    place = "e => [+e.textContent, +e.getAttribute('y')]"
    ticks = f"[...{chart}.querySelectorAll('.tick.end')].map({place})"
    (low, y0), *_, (high, y1) = browser.evaluate(ticks)
    tops = browser.evaluate(
        f"[...{chart}.querySelectorAll('.level line')].map(e => +e.getAttribute('y1'))"
    )
    assert y0 + (94.5 - low) / (high - low) * (y1 - y0) == pytest.approx(min(tops), abs=0.1)

    width = f"{chart}.getBoundingClientRect().width"
    small = browser.evaluate(width)
    click = f"{chart}.dispatchEvent(new MouseEvent('click', {{ bubbles: true, cancelable: true }}))"
    browser.evaluate(click)
    assert browser.evaluate(width) > 1.4 * small
    assert browser.evaluate("document.documentElement.scrollWidth") <= 1280
    browser.evaluate(click)
    assert browser.evaluate(width) == small


def test_a_collapsed_arm_has_a_shape_and_a_colour_of_its_own(opened):
    browser, _ = opened
    look = (
        "(() => {{ const use = document.querySelectorAll('.strips')[0].children[{}]"
        ".querySelector('.strip > use:last-of-type');"
        "return [use.getAttribute('href'), getComputedStyle(use).stroke] }})()"
    )
    learned, collapsed = browser.evaluate(look.format(0)), browser.evaluate(look.format(1))
    assert (learned[0], collapsed[0]) == ("#m-learned", "#m-collapsed")
    assert learned[1] != collapsed[1]


def test_gradient_studies_have_the_papers_figure(opened):
    browser, _ = opened
    titles = "[...document.querySelectorAll('#figure-2 figcaption b')].map(e => e.textContent)"
    assert browser.evaluate(titles) == ["Loss", "std of z/|z| × √d", "Top-1 on the way, %"]
    keys = "[...document.querySelectorAll('#figure-2 .legend li')].map(e => e.textContent)"
    assert browser.evaluate(keys) == ["base: SimSiam", "gradient: none"]


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_scrolls_the_table_and_not_the_page(browser, page, dark):
    browser.open(page[0].as_uri(), 390, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    box = "document.querySelector('.sortable').parentElement"
    assert browser.evaluate(f"{box}.scrollWidth > {box}.clientWidth")
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert (brightness < 64) if dark else (brightness > 192)


def test_without_script_everything_is_shown_and_nothing_pretends_to_work(browser, page):
    browser.tab("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page[0].as_uri())
        shown = "getComputedStyle(document.querySelector({})).display"
        assert browser.evaluate("document.documentElement.dataset.ready") is None
        assert browser.evaluate("document.querySelectorAll('#curves .arm.off').length") == 0
        assert browser.evaluate("document.querySelectorAll('thead button').length") == 0
        assert browser.evaluate(shown.format("'input[data-arm]'")) == "none"
        assert browser.evaluate(shown.format("'.buttons'")) == "none"
        assert browser.evaluate(shown.format("'.swatch'")) != "none"
        chart = "document.querySelector('#curves .chart')"
        width = f"{chart}.getBoundingClientRect().width"
        small = browser.evaluate(width)
        browser.evaluate(f"{chart}.parentElement.click()")  # the label's box, with no script
        assert browser.evaluate(width) > 1.4 * small
    finally:
        browser.tab("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [1280, 768])
def test_the_table_of_arms_is_whole_on_a_screen_and_a_tablet(browser, tmp_path, width):
    write_study_report(five_parts(3), tmp_path)
    browser.open((tmp_path / "report.html").as_uri(), width)
    box = "document.querySelector('#arms > .scroll')"
    assert browser.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert browser.evaluate(f"{box}.classList.contains('more')") is False
    heads = browser.evaluate(f"[...{box}.querySelectorAll('thead button')].map(e => e.textContent)")
    assert heads[:2] == ["Arm", "Verdict"]
    assert "Paper, %" in heads
