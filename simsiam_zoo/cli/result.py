"""A run's result, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simsiam_zoo.cli.text import columns, print_heading, print_line

_FILES = {
    "result.json": "these figures",
    "curves.svg": "loss, std, effective rank and kNN over the run",
    "metrics.jsonl": "the same as numbers",
    "recipe.toml": "the whole recipe; feed it back with --recipe",
    "lock.toml": "who supplied each part, and which versions",
    "backbone.safetensors": "the trained backbone, as timm loads it",
    "checkpoints/last.pt": "the last checkpoint",
}


def print_result(result: dict[str, Any], folder: Path) -> None:
    """Print the figures by network and protocol, the verdict, and what the run left behind."""
    figures = result["figures"]
    if figures:
        protocols = list(dict.fromkeys(figure["protocol"] for figure in figures))
        networks = list(dict.fromkeys(figure["network"] for figure in figures))
        found = {(f["network"], f["protocol"]): f"{100 * f['top1']:.1f} %" for f in figures}
        rows = [[n, *(found.get((n, p), "") for p in protocols)] for n in networks]
        print_line()
        print_heading(f"Top-1 on {figures[0]['test_images']:,} test images, features frozen")
        for line in columns([["", *protocols], *rows], wrap=0):
            print_line(line)
    print_line()
    print_heading(f"Verdict: {result['verdict']}")
    print_line(f"  {result['reason']}")
    if stopped := result.get("stopped_on_collapse"):
        print_line(f"  stopped at step {stopped:,}, since that was plain")
    if evidence := result.get("evidence"):
        words = []
        if (spread := evidence["std_sqrt_d"]) is not None:
            words.append(f"std x sqrt(d) {spread:.2f}")
        if (rank := evidence["effective_rank"]) is not None:
            words.append(f"effective rank {rank:.1f} of {evidence['effective_rank_limit']}")
        print_line("  " + ", ".join([*words, f"loss {evidence['last_loss']:.3f}"]))
    print_line()
    print_heading(str(folder))
    rows = [[name, text] for name, text in _FILES.items() if (folder / name).exists()]
    for line in columns(rows, wrap=1):
        print_line(line)


def print_report(report: dict[str, Any], path: Path | None) -> None:
    """Print an evaluation: a line for each figure, with its protocol and version."""
    data, transform = report["data"], report["transform"]
    print_line()
    print_heading(
        f"{report['network']}, frozen, on {data['test_images']:,} test images of {data['name']}"
    )
    rows = [["protocol", "version", "top-1", "95 %", "top-5", "worst class"]]
    for figure in report["figures"]:
        interval, top5 = figure["top1_interval"], figure["top5"]
        known = [share for share in figure["per_class"] if share is not None]
        rows.append(
            [
                figure["protocol"],
                str(figure["protocol_version"]),
                f"{100 * figure['top1']:.1f} %",
                "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}",
                "" if top5 is None else f"{100 * top5:.1f} %",
                f"{100 * min(known):.1f} %" if known else "",
            ]
        )
    for line in columns(rows, wrap=0):
        print_line(line)
    print_line(
        f"  {data['train_images']:,} training images, {data['width']} channels,"
        f" {transform['image_size']} px, crop {transform['crop']:g},"
        f" {report['machine']['device']}, {report['machine']['precision']}"
    )
    if path is not None:
        print_line()
        print_line(f"  {path}  all of this, with each class and the confusion matrix")
        print_line(f"  {path.with_suffix('.svg')}  the same as a picture")
