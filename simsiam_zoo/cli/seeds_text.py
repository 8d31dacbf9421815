"""What `ablate --dry-run --detect` prints below the plan."""

from __future__ import annotations

from typing import Any

from simsiam_zoo.cli.text import print_columns, print_heading, print_line

_LISTED = 30  # seeds that are written out to be copied


def print_seeds(plan: dict[str, Any]) -> None:
    """The seeds that `--detect` found, for each arm and for all."""
    found = plan["detect"]
    print_line()
    print_heading(f"Seeds that tell {found['points']:g} points by {found['metric']}")
    rows = [["arm", "spread, points", "of seeds", "needs seeds"]]
    for arm in found["arms"]:
        spread = "-" if arm["std"] is None else f"{100 * arm['std']:.2f}"
        needs = "-" if arm["seeds"] is None else f"{arm['seeds']:,}"
        rows.append([arm["label"], spread, str(arm["seen"]), needs])
    print_columns(rows, right=True)
    for arm in found["arms"]:
        if arm["why"]:
            print_line(f"  {arm['label']}: {arm['why']}")
    print_line(f"  spread: of the paired differences in {found['from']}")
    print_line(
        f"  power {100 * found['power']:.0f} %, paired t-test at {100 * found['alpha']:.0f} %"
    )
    known = [arm for arm in found["arms"] if arm["seeds"] is not None]
    least = min(known, key=lambda arm: arm["seen"])
    low, high = (end / least["std"] for end in least["std_interval"])
    print_line(
        f"  a spread of {least['seen']} seeds is uncertain: the true one may be {low:.1f} to"
        f" {high:.1f} times it"
    )
    label = next(arm["label"] for arm in known if arm["name"] == found["most_demanding"])
    print_line(f"  {label} needs most: {found['seeds']:,} seeds, {found['runs']:,} runs in all")
    if found["seeds"] <= _LISTED:
        more = (seed for seed in range(2 * _LISTED) if seed not in plan["seeds"])
        seeds = [*plan["seeds"], *more]
        print_line(f"  --seeds {','.join(map(str, seeds[: found['seeds']]))}")
