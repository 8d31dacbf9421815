"""The page in a real browser: what it shows, that it asks for nothing, that nothing breaks out."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from click.testing import CliRunner
from hostile_names import HOSTILE
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

from simsiam_zoo.charts.drawing import clean
from simsiam_zoo.cli import root
from simsiam_zoo.report.features import embed, open_network, open_run_data
from simsiam_zoo.training.run import load


def look(*words):
    done = CliRunner().invoke(root, ["look", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


@pytest.fixture(scope="session")
def page(seen_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("pages") / "look.html"
    look(seen_run, "--out", out, "--map", "tsne")
    return out


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_asks_for_nothing_breaks_nothing_and_fits(browser, page, tmp_path, width, dark):
    browser.open(page.as_uri(), width, dark=dark)
    assert browser.evaluate("document.documentElement.dataset.ready") == "true"
    assert browser.trouble() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
    assert (brightness < 64) if dark else (brightness > 192)
    browser.screenshot(tmp_path / "page.png", whole=False)
    assert (tmp_path / "page.png").stat().st_size > 10_000


def test_every_part_of_the_page_is_there(browser, page):
    browser.open(page.as_uri())
    count = "document.querySelectorAll({}).length"
    # Top-1 on the way was measured once, which makes no curve.
    assert browser.evaluate(count.format("'.chart'")) == 7
    assert browser.evaluate(count.format("'.chart polyline'")) == 7 + 1 + 2  # two views, three lr
    assert browser.evaluate(count.format("'.cloud use'")) == 64
    assert browser.evaluate(count.format("'#neighbours tbody tr'")) >= 8
    assert browser.evaluate(count.format("'#confusions tbody tr'")) == 10
    assert browser.evaluate(count.format("'details'")) == 2
    broken = "[...document.images].filter((i) => !i.complete || !i.naturalWidth).length"
    assert browser.evaluate(broken) == 0
    assert browser.evaluate("document.images.length") >= 8 * 9
    assert "stop-gradient" in browser.evaluate("document.querySelector('details pre').textContent")


def test_the_head_says_what_ran_and_the_loss_is_told_once(browser, page, seen_run, hostile_shards):
    browser.open(page.as_uri())
    run = load(seen_run)
    head = browser.evaluate("document.querySelector('.kicker').textContent")
    for words in (f"data {hostile_shards}", "seed 0", f"preset {run.recipe.preset}", " epoch"):
        assert words in head
    assert re.search(r"· \d{4}-\d\d-\d\d$", head)
    kinds = "[...document.querySelectorAll('.parts dt')].map(e => e.textContent)"
    assert browser.evaluate(kinds)[-2:] == ["augmentation", "data"]
    mark = browser.evaluate("document.querySelector('.verdict use').getAttribute('href')")
    assert mark == f"#m-{run.verdict}"
    loss = f"{run.result['evidence']['last_loss']:.3f}".replace("-", "−")
    below = browser.evaluate("document.querySelector('.reading').textContent")
    assert below == f"mean of the last tenth of the steps: {loss}"
    assert loss in browser.evaluate("document.querySelector('.evidence').textContent")
    left = "Math.min(...[...document.querySelectorAll('.chart .tick.end')].map(e => e.getBBox().x))"
    assert browser.evaluate(left) >= 0  # no sign is cut off


def test_hostile_class_names_are_shown_as_the_text_they_are(browser, page):
    browser.open(page.as_uri())
    shown = browser.evaluate("[...document.querySelectorAll('.legend li')].map(e => e.textContent)")
    names = [clean(name) for name in HOSTILE]  # without the sign that turns what follows
    assert shown == names
    rows = "[...document.querySelectorAll('.matrix tbody th')].map(e => e.textContent)"
    assert browser.evaluate(rows) == names
    assert browser.evaluate("document.title").startswith("seen: ")
    assert browser.evaluate("document.querySelectorAll('script').length") == 2
    data = browser.evaluate("document.getElementById('data').textContent")
    assert json.loads(data)["names"] == list(HOSTILE)


def test_the_policy_forbids_scripts_styles_and_requests_of_others(browser, page, tmp_path):
    """Were a text not escaped, it would still do nothing."""
    attack = (
        "<script>document.title = 'owned'</script>"
        "<img src=x onerror=\"document.title = 'owned'\"><img src='http://example.com/a.png'>"
        "<style>body { display: none }</style><link rel=stylesheet href='http://example.com/a.css'>"
    )
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</footer>", attack + "</footer>"))
    browser.open(broken.as_uri())
    assert browser.evaluate("document.title").startswith("seen: ")
    assert browser.evaluate("getComputedStyle(document.body).display") == "block"
    assert any("Content Security Policy" in line for line in browser.trouble())
    assert "TypeError" in browser.evaluate("fetch('http://example.com/b').then(String, String)")
    told = [(e.get("method"), e.get("params", {})) for e in browser.events]
    asked = {
        params["requestId"]
        for method, params in told
        if method == "Network.requestWillBeSent" and "example" in params["request"]["url"]
    }
    refused = {
        params["requestId"]
        for method, params in told
        if method == "Network.loadingFailed" and params.get("blockedReason") == "csp"
    }
    assert asked <= refused  # by the policy, and not for want of a network


def test_values_are_shown_to_the_mouse_and_to_the_keyboard(browser, page, seen_run):
    browser.open(page.as_uri())
    browser.evaluate("document.querySelector('.chart').focus()")
    browser.press("ArrowLeft")
    reading = "document.querySelector('.reading').textContent"
    last = [row["loss"] for row in load(seen_run).metrics if "loss" in row][-1]
    assert f": {last:.4g}".replace("-", "−") in browser.evaluate(reading)

    center = """(() => {
        document.querySelector('.cloud').scrollIntoView();
        const box = document.querySelectorAll('.cloud use')[0].getBoundingClientRect();
        return [box.left + box.width / 2, box.top + box.height / 2];
    })()"""
    browser.move(*browser.evaluate(center))
    picked = browser.evaluate("document.querySelector('.picked-label').textContent")
    assert re.search(r", image \d+ of 64$", picked)
    own = "document.querySelector('.cloud g').dataset.class"
    assert picked.startswith(HOSTILE[int(browser.evaluate(own))])

    browser.evaluate("document.querySelectorAll('.legend button')[3].click()")
    pressed = "[...document.querySelectorAll('.legend [aria-pressed=true]')].length"
    assert browser.evaluate(pressed) == 1
    browser.evaluate("document.querySelector('.cloud').focus()")
    browser.press("ArrowRight")
    picked = browser.evaluate("document.querySelector('.picked-label').textContent")
    assert picked.startswith(HOSTILE[3])


def test_the_confusion_matrix_is_scikit_learns(browser, page, seen_run):
    run = load(seen_run)
    dataset, network = open_run_data(run), open_network(run)
    bank, queries = embed(network, dataset.train), embed(network, dataset.test)

    def weight(distance):
        import numpy as np

        return np.exp((1 - distance) / 0.1)

    model = KNeighborsClassifier(20, metric="cosine", weights=weight, algorithm="brute")
    predicted = model.fit(bank.x, bank.labels).predict(queries.x)
    expected = confusion_matrix(queries.labels, predicted, labels=range(10)).tolist()
    browser.open(page.as_uri())
    cells = """[...document.querySelectorAll('.matrix tbody tr')].map((row) =>
        [...row.querySelectorAll('td:not(.recall)')].map((e) => Number(e.textContent) || 0))"""
    assert browser.evaluate(cells) == expected


def test_a_page_is_one_file_without_addresses(page):
    text = page.read_text()
    addresses = set(re.findall(r"(?:src|href)=\"([^\"#][^\"]{0,20})", text))
    assert all(address.startswith("data:") for address in addresses)
    assert len(text) < 1_000_000


def test_unlabelled_images_give_a_page_without_classes(browser, seen_run, unlabelled, tmp_path):
    out = tmp_path / "look.html"
    look(seen_run, "--data", unlabelled, "--out", out)
    browser.open(out.as_uri())
    assert browser.trouble() == []
    assert "not all labelled" in browser.evaluate("document.body.innerText")
    assert (
        browser.evaluate("document.querySelectorAll('.legend, .matrix, .right, .wrong').length")
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('.cloud use').length") == 24
    own = "[...document.querySelectorAll('#neighbours tbody tr')].filter((row) => {"
    own += "const uris = [...row.querySelectorAll('img')].map((i) => i.src);"
    own += "return uris.slice(1).includes(uris[0]) })"
    assert browser.evaluate(f"{own}.length") == 0  # an image is not its own neighbour


def test_a_run_that_is_not_complete_shows_what_is_there(browser, seen_run, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    for name in ("recipe.toml", "lock.toml"):
        shutil.copy(seen_run / name, folder)
    lines = (seen_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:10])
    done = look(folder)
    assert "without images: " in done.stderr
    browser.open((folder / "look.html").as_uri())
    assert browser.trouble() == []
    text = browser.evaluate("document.body.innerText")
    assert "not complete" in text
    assert "could not be looked at" in text
    assert browser.evaluate("document.querySelectorAll('.chart').length") > 3
    assert browser.evaluate("document.querySelector('.cloud')") is None


def test_many_classes_with_long_names_and_large_images_stay_readable(
    browser, seen_run, many_classes, tmp_path
):
    out = tmp_path / "look.html"
    look(seen_run, "--data", many_classes, "--out", out, "--map", "pca")
    assert out.stat().st_size < 3_000_000
    for width in (1280, 390):
        browser.open(out.as_uri(), width)
        assert browser.trouble() == []
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        count = "document.querySelectorAll({}).length"
        assert browser.evaluate(count.format("'.matrix tbody tr'")) == 20
        assert browser.evaluate(count.format("'.legend li'")) == 200
        sizes = """(query, side) => Math.max(...[...document.querySelectorAll(query)].map(
            (e) => e.getBoundingClientRect()[side]))"""
        assert browser.evaluate(f"({sizes})('.matrix tbody tr', 'height')") < 50
        assert browser.evaluate(f"({sizes})('.matrix thead tr', 'height')") < 220
        assert browser.evaluate(f"({sizes})('.matrix tbody th', 'width')") < 0.35 * width
        assert browser.evaluate(f"({sizes})('.legend', 'height')") < 450
    thumbnails = "Math.max(...[...document.images].map((i) => i.naturalWidth))"
    assert browser.evaluate(thumbnails) <= 96
    full = "document.querySelector('.matrix tbody th').title"
    assert browser.evaluate(full).startswith("West Highland white terrier, or another dog, number")
