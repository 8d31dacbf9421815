from __future__ import annotations

import base64
import io
import re
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from simsiam_zoo.charts.drawing import inline_chart
from simsiam_zoo.charts.lines import (
    BOTTOM,
    LEFT,
    RIGHT,
    Series,
    find_ticks,
    make_chart,
    run_charts,
    thin,
)
from simsiam_zoo.errors import PluginError
from simsiam_zoo.evaluation.knn import nearest
from simsiam_zoo.report.collect import choose_method, confuse, data_uri, project, without_own


def groups(per: int = 20) -> np.ndarray:
    """Three directions in 30 dimensions, with noise around each."""
    draw = np.random.default_rng(0)
    centers = np.repeat(np.eye(30)[:3], per, axis=0)
    return (centers + 0.05 * draw.standard_normal(centers.shape)).astype(np.float32)


@pytest.mark.parametrize("method", ["tsne", "pca", "umap"])
def test_a_map_keeps_neighbours_and_repeats(method):
    if method == "umap" and find_spec("umap") is None:
        pytest.skip("extra: umap")
    x = groups()
    points, _ = project(x, method)
    assert trustworthiness(x, points, n_neighbors=5, metric="cosine") > 0.75
    nearest_two = NearestNeighbors(n_neighbors=6).fit(points).kneighbors(return_distance=False)
    assert (nearest_two // 20 == np.arange(60)[:, None] // 20).mean() > 0.95
    np.testing.assert_array_equal(points, project(x, method)[0])
    assert points.min() >= 0
    assert points.max() <= 1


@pytest.mark.parametrize("x", [np.zeros((40, 8)), np.ones((40, 8)), np.eye(3), np.ones((1, 4))])
def test_a_collapsed_or_tiny_set_has_a_map_too(x):
    points, name = project(x.astype(np.float32), "tsne")
    assert points.shape == (len(x), 2)
    assert np.isfinite(points).all()
    assert name == "PCA"


def test_umap_is_taken_where_it_is_and_named_where_it_is_not(monkeypatch):
    monkeypatch.setattr("simsiam_zoo.report.collect.find_spec", lambda name: None)
    assert choose_method("auto") == "tsne"
    with pytest.raises(PluginError, match=r"simsiam-zoo\[umap\]"):
        choose_method("umap")
    monkeypatch.setattr("simsiam_zoo.report.collect.find_spec", lambda name: name)
    assert choose_method("auto") == "umap"


def test_an_image_is_not_its_own_neighbour():
    bank = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    bank[11:16] = bank[10]  # six of one kind: an image is not always the first of them
    rows = nearest(bank, bank, 5)[1]
    columns = without_own(rows, torch.arange(30))
    model = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(bank)
    places = model.kneighbors(return_distance=False)  # of its own bank: without each itself
    for row, column in enumerate(columns.tolist()):
        found = rows[row, column].tolist()
        assert row not in found
        if not {*range(10, 16)} & {*found, row}:  # else they tie
            assert found == places[row].tolist()
    assert without_own(torch.tensor([[0]]), torch.tensor([0])).shape == (1, 0)


def test_of_many_classes_those_with_most_errors_are_shown():
    labels = torch.arange(100).repeat(3)
    predicted = labels.clone()
    predicted[:10] = 99  # ten classes lose an image to one
    found = confuse(predicted, labels, 100)
    assert set(range(10)) | {99} <= set(found.classes)
    assert len(found.classes) == 20
    assert found.top1 == pytest.approx(290 / 300)
    row = found.counts[found.classes.index(0)]
    assert (row[found.classes.index(0)], row[found.classes.index(99)]) == (2, 1)
    assert sum(map(sum, found.counts)) + sum(found.elsewhere) == 60


def test_labels_that_are_large_numbers_take_no_memory_for_their_square():
    labels = torch.tensor([7, 89_999, 7])
    found = confuse(torch.tensor([7, 7, 89_999]), labels, 90_000)
    assert (found.top1, found.total) == (pytest.approx(1 / 3), 90_000)
    place = found.classes.index
    assert found.counts[place(7)][place(89_999)] == found.counts[place(89_999)][place(7)] == 1


def test_a_chart_puts_values_where_its_axis_says():
    rows = [
        {"step": 10 * i, "epoch": i, "loss": -i / 4, "gradient_norm": 10.0**i} for i in (1, 2, 4)
    ]
    loss, norm = run_charts(rows)
    for chart, scale in ((loss, lambda y: y), (norm, np.log10)):
        ticks = [float(text.replace("−", "-")) for _, text in chart.y.labels()]
        low, high = chart.y.labels()[0][0], chart.y.labels()[-1][0]
        share = (scale(ticks[-1]) - scale(ticks[0])) / (high - low)
        line = chart.lines[0]
        for (_, y), (_, value) in zip(chart.pixels(line), line.points, strict=True):
            assert scale(ticks[0]) + (y - low) * share == pytest.approx(scale(value), abs=0.02)
    xs = [x for x, _ in loss.pixels(loss.lines[0])]
    assert xs[-1] == RIGHT
    assert (xs[1] - LEFT) * 2 == pytest.approx(xs[2] - LEFT, abs=0.2)
    assert "loss from -0.25 to -1" in loss.summary.lower()


@given(
    st.floats(-1e9, 1e9, allow_subnormal=False),
    st.floats(0, 1e9, allow_subnormal=False),
    st.booleans(),
)
def test_ticks_are_few_and_round_and_enclose_the_values(low, span, log):
    if log:
        low = abs(low) + 1e-6
    high = low + span
    ticks = find_ticks(low, high, log)
    slack = 1e-9 * max(abs(low), abs(high), 1e-9)
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert ticks[0] <= low + slack
    assert ticks[-1] >= high - slack
    steps = np.diff(np.log10(ticks) if log else ticks)
    assert steps.max() <= (5 if log else 1 + 1e-3) * steps.min()


def test_a_long_number_at_an_axis_is_not_cut_off_and_one_point_is_no_chart():
    rows = [
        {"step": i, "epoch": i, "loss": -0.99991 - i * 1e-5, "effective_rank": 3} for i in (1, 2)
    ]
    del rows[0]["effective_rank"]
    (chart,) = run_charts(rows)
    text = str(inline_chart(chart, "c"))
    long = re.findall(r'<text class="tick end"[^>]*>(?:−[^<]{7,})<', text)
    assert long
    assert all(f'textLength="{LEFT - 8}"' in each for each in long)


def test_names_at_the_ends_stand_apart_in_the_lines_order():
    ends = (-0.9, -0.91, -0.92, -0.5, 0.0)
    lines = [Series([(0, 0), (1, y)], "c0", label=f"{y}") for y in ends]
    found = make_chart("Loss", "", lines, 1.0).ends
    assert [line.label for line, _, _ in found] == ["0.0", "-0.5", "-0.9", "-0.91", "-0.92"]
    places = [place for _, _, place in found]
    assert np.diff(places).min() >= 12
    assert places[-1] <= BOTTOM
    assert make_chart("Loss", "", lines * 5, 1.0).ends == []  # no room for so many
    levels = make_chart("Top-1", "", lines, 1.0, levels=[(5.0, "high"), (0.0, "low")]).told_levels
    assert [(text, place > y) for y, place, text in levels] == [("high", True), ("low", False)]


def test_what_is_no_number_is_no_point():
    values = enumerate([1.0, "<b>", None, 2.0], 1)
    rows = [{"step": step, "epoch": step // 4, "loss": value} for step, value in values]
    (chart,) = run_charts(rows)
    assert [value for _, value in chart.lines[0].points] == [1.0, 2.0]
    assert chart.lines[0].values == "0.25,1 1,2"
    assert run_charts([]) == []


@pytest.mark.parametrize(("last", "epochs"), [(25, 2.5), (9, 0.9)])
def test_a_run_in_the_middle_of_an_epoch_is_drawn_up_to_there(last, epochs):
    rows = [{"step": step, "epoch": step // 10, "loss": 1.0} for step in range(1, last + 1)]
    (chart,) = run_charts(rows)
    assert chart.x.high == pytest.approx(epochs)


def test_a_long_run_keeps_its_peaks_and_its_ends():
    values = [(float(i), 0.0) for i in range(10_000)]
    values[4321] = (4321.0, 7.0)
    values[9876] = (9876.0, -7.0)
    kept = thin(values)
    assert len(kept) < 450
    assert {values[0], values[4321], values[9876], values[-1]} <= set(kept)
    assert kept == sorted(kept)


def test_an_image_survives_its_data_uri():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:5, 3] = 255
    kind, _, content = data_uri(pixels).partition(";base64,")
    assert kind == "data:image/webp"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"), int)
    assert np.abs(shown - pixels).max() < 40
