"""`simsiam-zoo inspect`: what is in shards, and what is wrong there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from simsiam_zoo.cli import options
from simsiam_zoo.cli.text import print_columns, print_figures, print_heading, print_json, print_line
from simsiam_zoo.errors import DataError

_ROWS = 20  # of classes and of damaged samples; --json has all


@click.command()
@click.argument("shards")
@click.option("--check", is_flag=True, help="Decode every image, not only a sample of 512.")
@click.option("--grid", metavar="OUT.png", help="Draw images and their views as training does.")
@options.preset("The recipe whose views are drawn (default: photos).")
@options.recipe_file
@options.jobs
@options.as_json("what was found")
@options.quiet
def inspect(shards: str, as_json: bool, **asked: Any) -> None:
    """Tell what is in SHARDS: counts, classes, sizes, formats, damage.

    SHARDS is a folder, a tar, or a pattern; or images, which are packed into the cache. Images are
    read, compared with their checksums where these are known, and decoded. Ends with 4 if any is
    damaged.

    \b
    Examples:
      simsiam-zoo inspect data/cifar10 --check
      simsiam-zoo inspect data/cifar10 --grid views.png --preset cifar10
    """
    from simsiam_zoo.api.data import inspect as inspect_shards

    found = inspect_shards(shards, **asked)
    report = asdict(found)
    del report["drawn"]
    if as_json:
        print_json(report)
    else:
        _print(report)
    for line in found.drawn:
        print_line(line, err=True)
    if found.damaged:
        looked_at = sum(split["looked_at"] for split in found.splits.values())
        raise DataError(f"{len(found.damaged):,} of the {looked_at:,} images looked at are damaged")


def _print(report: dict[str, Any]) -> None:
    splits = report["splits"]
    print_heading(report["source"])
    rows = []
    for name, split in splits.items():
        numbers = (split["samples"], split["shards"], round(split["bytes"] / 1e6))
        more = (split["labelled"], split["looked_at"], len(split["damaged"]))
        rows.append((name, *(f"{number:,}" for number in (*numbers, *more))))
    header = ("", "images", "shards", "MB", "labelled", "looked at", "damaged")
    print_figures([header, *rows])
    if packed := report["packed"]:
        told = [
            f"{key} {packed[key]}" for key in ("seed", "resize_short", "limit") if key in packed
        ]
        print_line(f"  packed from {packed.get('source')}, {', '.join(told)}")
    for note in report["notes"]:
        print_line(f"  note: {note}")
    print_line()
    print_heading("Images")
    facts = []
    for name, split in splits.items():
        if split["width"]:
            formats = ", ".join(f"{form} {count:,}" for form, count in split["formats"].items())
            facts.append((name, "formats", formats))
            if split["channels"]:
                facts.append((name, "pixels", ", ".join(split["channels"])))
            for side in ("width", "height"):
                low, median, high = (split[side][key] for key in ("min", "median", "max"))
                facts.append((name, side, f"{low} to {high}, median {median}"))
    if facts:
        print_columns(facts, wrap=2)
    _print_classes(report["classes"], splits)
    _print_problems(splits)


def _print_problems(splits: dict[str, Any]) -> None:
    for name, split in splits.items():
        for note in split["notes"]:
            print_line(f"  note: {name}: {note}")
    if damaged := [entry for split in splits.values() for entry in split["damaged"]]:
        print_line()
        print_heading("Damaged")
        print_columns([(e["sample"], e["problem"]) for e in damaged[:_ROWS]], wrap=1)
        _print_more(len(damaged))


def _print_classes(names: list[str] | None, splits: dict[str, Any]) -> None:
    labels = sorted({int(label) for split in splits.values() for label in split["labels"]})
    if not labels:
        return
    print_line()
    print_heading(f"{len(labels):,} classes")
    rows = []
    for label in labels[:_ROWS]:
        name = names[label] if names and label < len(names) else ""
        counts = [f"{split['labels'].get(str(label), 0):,}" for split in splits.values()]
        rows.append([f"{label}  {name}", *counts])
    print_figures([["", *splits], *rows])
    _print_more(len(labels))


def _print_more(count: int) -> None:
    if count > _ROWS:
        print_line(f"  and {count - _ROWS:,} more: --json lists all")
