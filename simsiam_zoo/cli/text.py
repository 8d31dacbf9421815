"""What commands print: text in columns, as wide as the terminal; a run's result, an evaluation."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simsiam_zoo.charts.tables import padded, shown_width, text_table
from simsiam_zoo.metrics import (
    all_frozen,
    figure_table,
    top1_by_data,
    top1_table,
    without_labels_table,
)

if TYPE_CHECKING:  # a listing of names needs none of them
    from simsiam_zoo.api.measure import Evaluation
    from simsiam_zoo.recipe import Recipe

_FILES = {
    "result.json": "these figures",
    "curves.svg": "loss, std, effective rank and kNN over the run",
    "metrics.jsonl": "the same as numbers",
    "recipe.toml": "the whole recipe; feed it back with --recipe",
    "lock.toml": "who supplied each part, and which versions",
    "backbone.safetensors": "the trained backbone, as timm loads it",
    "checkpoints/last.pt": "the last checkpoint",
}

MOST_ADVICE = 2  # printed after a run; result.json has all
_NAMED = 4  # settings that differ
_NARROWEST = 16  # below this, a column of words is worse than a line that runs over the edge


def print_heading(text: str) -> None:
    """A line in bold, where that is wanted and can be shown."""
    print_line(text, bold=True)


def print_line(text: str = "", *, bold: bool = False, err: bool = False) -> None:
    """Print a text on stdout, or on stderr, without the control characters that are in it."""
    shown = without_controls(text)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    color = False if plain else None
    click.echo(click.style(shown, bold=True) if bold else shown, err=err, color=color)


def print_json(value: object) -> None:
    """Print plain values as JSON."""
    import json  # not at the top, as shutil and textwrap: a listing seldom needs them

    print_line(json.dumps(value, indent=2))


def without_controls(text: str) -> str:
    """The text without control characters but line breaks: names and titles are other people's."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def print_columns(rows: Sequence[Sequence[str]], wrap: int = 0) -> None:
    """Print `columns`."""
    for line in columns(rows, wrap):
        print_line(line)


def print_figures(rows: Sequence[Sequence[str]]) -> None:
    """Print a table of figures, which is not wrapped; the first column has its labels."""
    if rows:
        print_line(text_table(_on_one_line(rows)))


def columns(rows: Sequence[Sequence[str]], wrap: int, indent: int = 2) -> list[str]:
    """Each row as a text with aligned columns; column `wrap` takes the width that others leave.

    On a terminal that column is wrapped within its own width. In a pipe each row is one line,
    however long, so that `grep` finds all of it.
    """
    cells = _on_one_line(rows)
    if not cells:
        return []
    widths = [max(map(shown_width, column)) for column in zip(*cells, strict=True)]
    if (terminal := terminal_width()) is not None:
        others = indent + sum(widths) - widths[wrap] + 2 * (len(widths) - 1)
        widths[wrap] = min(widths[wrap], max(terminal - others, _NARROWEST))
    return [_row(row, widths, wrap, indent) for row in cells]


def _on_one_line(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The cells, into which a plugin may have put anything."""
    return [[without_controls(" ".join(cell.strip().splitlines())) for cell in row] for row in rows]


def overhang(cells: Mapping[str, Sequence[str]]) -> int:
    """By how much a table, head → cells, is wider than the terminal; 0 in a pipe."""
    terminal = terminal_width()
    width = sum(2 + max(map(shown_width, (head, *column))) for head, column in cells.items())
    return 0 if terminal is None else max(0, width - terminal)


def leave_out(cells: dict[str, list[str]], expendable: Iterable[str]) -> list[str]:
    """Take columns out of a table, the first of these first, until it fits; their heads."""
    left_out = []
    for head in expendable:
        if head in cells and overhang(cells):
            del cells[head]
            left_out.append(head)
    return left_out


def print_result(result: dict[str, Any], folder: Path) -> None:
    """Print the figures by network and protocol, the verdict, and what the run left behind."""
    figures = result["figures"]
    if figures:
        print_line()
        images = f"{figures[0]['test_images']:,} {result.get('measured_on', 'test')} images"
        print_heading(f"Top-1 on {images}" + ", features frozen" * all_frozen(figures))
        print_columns(top1_table(figures), wrap=0)
    print_line()
    print_heading(f"Verdict: {result['verdict']}")
    print_line(f"  {result['reason']}")
    for change in result.get("changes", ()):
        print_line(f"  from epoch {change['epoch']} on: {change['what']}")
    if stopped := result.get("stopped_on_collapse"):
        print_line(f"  stopped at step {stopped:,}, since that was plain")
    if evidence := result.get("evidence"):
        forms = {
            "std_sqrt_d": "std x sqrt(d) {:.2f}",
            "effective_rank": f"effective rank {{:.1f}} of {evidence['effective_rank_limit']}",
            "last_loss": "loss {:.3f}",
        }
        known = {key: form for key, form in forms.items() if evidence[key] is not None}
        print_line("  " + ", ".join(form.format(evidence[key]) for key, form in known.items()))
        if rows := without_labels_table(evidence):
            print_line()
            print_heading("Without labels")
            print_figures(rows)
    print_advice(result.get("advice") or [], folder, labels=bool(figures))
    by_timm = _loads_in_timm(folder / "backbone.safetensors")
    own = {} if by_timm else {"backbone.safetensors": "the trained backbone"}
    print_files(folder, {**_FILES, **own})
    run = shlex.quote(str(folder))
    more = (
        (f"evaluate {run}", "other protocols, other data")
        if figures
        else (f"embed {run} --out features.npz", "its features of every image")
    )
    export = (f"export {run} --to timm", "the backbone for another library")
    print_line()
    print_heading("Next")
    following = ((f"look {run}", "the run as a page"), more, *([export] if by_timm else []))
    print_beside_or_below((f"simsiam-zoo {words}", text) for words, text in following)


def print_beside_or_below(rows: Iterable[tuple[str, str]]) -> None:
    """Print commands or paths, each with what it is for: beside it, or below where it is long."""
    rows, wide = list(rows), terminal_width() or sys.maxsize
    lines = "\n".join(columns(rows, wrap=1)).split("\n")
    if any(shown_width(line) > wide for line in lines):
        lines = [line for first, text in rows for line in (f"  {first}", f"    {text}")]
    for line in lines:
        print_line(line)


def _loads_in_timm(backbone: Path) -> bool:
    """Whether the file states how timm makes its backbone; also where there is no file."""
    if not backbone.is_file():
        return True
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(backbone, "np") as file:
            return "simsiam_zoo.timm" in (file.metadata() or {})
    except (OSError, SafetensorError):  # damaged since
        return True


def print_published(recipe: Recipe) -> None:
    """Print what the preset's source reached with its settings, where it states that."""
    from simsiam_zoo.recipe.expected import published_for

    if (published := published_for(recipe)) is None:
        return
    found, others = published
    print_line()
    print_heading(f"Published: {found}")
    lines = [found.source, "; ".join(filter(None, (found.note, "unmeasured here")))]
    if others:
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        lines.append(f"this run has other settings: {', '.join(others[:_NAMED])}{more}")
    print_columns([(line,) for line in lines])


def print_advice(advice: Sequence[Mapping[str, Any]], folder: Path, labels: bool = True) -> None:
    """Print what the figures of a run that did not learn suggest, with the command to run.

    Without `labels` no search is named: it could choose nothing.
    """
    from simsiam_zoo.training.advice import command

    if advice:
        print_line()
        print_heading("What its figures suggest")
    for each in advice[:MOST_ADVICE]:
        print_columns([[each["reason"]]])
        if each["flags"]:
            print_line(f"    {command(folder, each['flags'])}")
    if len(advice) > MOST_ADVICE:
        print_line(f"  {len(advice) - MOST_ADVICE} more in result.json")
    if labels and any(
        "lr" in (each["flags"] or "") or "min_scale" in (each["flags"] or "") for each in advice
    ):
        print_line(f"  simsiam-zoo tune {shlex.quote(str(folder))} tries several such values")


def print_files(folder: Path, texts: Mapping[str, str]) -> None:
    """Print the folder and those of its files that are there, each with what it is."""
    print_line()
    print_heading(str(folder))
    print_columns([row for row in texts.items() if (folder / row[0]).exists()], wrap=1)


def print_report(found: Evaluation) -> None:
    """Print an evaluation: a line for each figure, with its protocol and version."""
    report, path = found.report, found.path
    data, transform = report["data"], report["transform"]
    print_line()
    print_heading(found.heading)
    print_columns(figure_table(found.figures), wrap=0)
    if found.untrained:
        print_line()
        print_heading("The untrained network")
        print_columns(figure_table(found.untrained), wrap=0)
    print_line(
        f"  {data['train_images']:,} training images, {data['width']} channels,"
        f" {transform['image_size']} px, crop {transform['crop']:g},"
        f" {report['machine']['device']}, {report['machine']['precision']}"
    )
    if path is not None:
        print_line()
        texts = {path: "all of this, with each class and the confusion matrix"}
        texts[path.with_suffix(".svg")] = "the same as a picture"
        print_beside_or_below((str(file), text) for file, text in texts.items())


def print_reports(reports: Sequence[Mapping[str, Any]], paths: Sequence[Path | None]) -> None:
    """Print evaluations of one network on several data sets: protocols down, data across.

    A report is as `evaluate` gives it, or has an `error`; `asked` is the data's name for the user.
    """
    measured = [report for report in reports if "error" not in report]
    for key, title in (("figures", "Top-1"), ("untrained", "Top-1 of the untrained network")):
        shown = [report for report in measured if key in report]
        frozen = ", features frozen" if all(all_frozen(x[key]) for x in shown) else ""
        head, *rows = top1_by_data([(_last_word(x["asked"]), x[key]) for x in shown])
        if rows:
            print_line()
            print_heading(f"{title} by data set{frozen}")
            for part in _fitting([head, *rows]):
                print_figures(part)
    if measured:
        print_line()
    for report, path in zip(reports, paths, strict=True):
        if "error" not in report and path is not None:
            count, of = report["data"]["test_images"], report["data"]["measured_on"]
            print_line(f"  {path}  {_last_word(report['asked'])}, {count:,} {of} images")
    for report in reports:
        if "error" in report:
            print_line(f"Error: {report['asked']}: {report['error']['message']}", err=True)
            print_line(f"  {report['error']['hint'] or ''}".rstrip(), err=True)


def _last_word(asked: str) -> str:
    """A data set's name; the last part of a path or URL."""
    return asked.rstrip("/").rpartition("/")[2] or asked


def _fitting(rows: Sequence[Sequence[str]]) -> list[list[list[str]]]:
    """A table as several with the same labels, each as wide as the terminal."""
    widths = [max(map(shown_width, column)) for column in zip(*rows, strict=True)]
    wide, parts, used = terminal_width() or sys.maxsize, [[0]], 2 + widths[0]
    for place, width in enumerate(widths[1:], start=1):
        if len(parts[-1]) > 1 and used + 2 + width > wide:
            parts.append([0])
            used = 2 + widths[0]
        parts[-1].append(place)
        used += 2 + width
    return [[[row[place] for place in part] for row in rows] for part in parts]


def _row(cells: list[str], widths: list[int], wrap: int, indent: int) -> str:
    width = max(widths[wrap], 1)
    first, *rest = [cells[wrap]]
    if len(first) > width:  # wrapping takes ten times as long as all the rest of a row
        import textwrap

        # Names, paths and addresses stay whole, at any width: they are there to be copied.
        first, *rest = textwrap.wrap(first, width, break_on_hyphens=False, break_long_words=False)
    lines = [[*cells[:wrap], first, *cells[wrap + 1 :]]]
    lines += [[*[""] * wrap, text] for text in rest]
    texts = ("  ".join(map(padded, line, widths)) for line in lines)
    return "\n".join((" " * indent + text).rstrip() for text in texts)


def terminal_width() -> int | None:
    """The terminal's width; None in a pipe whose reader set no COLUMNS."""
    if not sys.stdout.isatty() and not os.environ.get("COLUMNS"):
        return None
    import shutil

    return shutil.get_terminal_size().columns
