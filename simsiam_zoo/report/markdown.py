"""`report.md`: the report in GitHub-flavoured Markdown, with the plots beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simsiam_zoo.report import answer, tables, text
from simsiam_zoo.report.pages import wall_time
from simsiam_zoo.report.study import StudyView
from simsiam_zoo.report.study_charts import PLOTS

_ENTITIES = {sign: f"&#{ord(sign)};" for sign in "\\`|<>&@$[]"}
_START = re.compile(r"^(?:[-+=#>]|\d{1,9}[.)](?= |$))")


def render_markdown(study: StudyView, plots: Sequence[str]) -> str:
    """The whole text.

    Args:
        study: as `read_results` gives it.
        plots: names of the files in `plots/`.
    """
    blocks = [f"# {escape(study.title)}", *_asked(study), *_top(study)]
    if study.arms:
        columns = [_head(column) for column in tables.arm_columns(study)]
        table = _table(columns, tables.arm_columns(study), tables.arm_rows(study))
        blocks += ["## Arms", table, _READING]
    for name in PLOTS:
        if name in plots:
            blocks.append(f"![{PLOTS[name]}](plots/{name})")
    blocks += [*_differences(study), *_failed(study), *_not_run(study), *_runs(study)]
    return "\n\n".join([*blocks, *_provenance(study)]) + "\n"


def escape(value: str, begins: bool = True) -> str:
    """Escape a text for a paragraph, a list or a table's cell.

    Args:
        value: on one line or several, which become one.
        begins: whether it may stand at a line's or an item's beginning.

    Entities are used where a backslash would not do in a table, and for what GitHub makes more of
    (`@name`, `$`). Addresses do not become links.
    """
    value = "".join(_ENTITIES.get(sign, sign) for sign in " ".join(value.split()))
    value = re.sub(r"[*~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", value)
    value = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp)(:)", r"\1&#58;", value)
    value = re.sub(r"(?i)\bwww\.", "www&#46;", value)
    value = re.sub(r"(?<=\s)#(?=#*$)", r"\#", value)  # it would close a heading
    if not begins:
        return value
    return _START.sub(lambda found: f"{found[0][:-1]}&#{ord(found[0][-1])};", value)


def fenced(value: str) -> str:
    """A fenced block; its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{value}\n{fence}"


_READING = (
    "Mean ± standard deviation over seeds. From base: difference in points, paired by seed, and its"
    " 95 % t-interval, which covers the choice of seeds, not that of test images."
    " Paper: what the paper states of such an arm, with its own data, network and protocol."
)


def _asked(study: StudyView) -> list[str]:
    words = [f"study {escape(study.study)}"] if study.study else []
    words += [f"preset {escape(study.preset)}"] if study.preset else []
    asked = [escape(part) for part in study.description.split("\n\n") if part.strip()]
    return [*([f"simsiam-zoo, {', '.join(words)}"] if words else []), *asked]


def _top(study: StudyView) -> list[str]:
    progress = answer.progress(study)
    found = [f"**{escape(progress)}**"] if progress else []
    told = " ".join(escape(sentence) for sentence in answer.answer(study))
    found += [told] if told else []
    notes = [escape(note) for note in answer.notes(study)]
    for warning, arms in answer.warnings(study):
        notes.append(
            f"**{escape(text.listing([text.quoted(arm) for arm in arms]))}:** {escape(warning)}"
        )
    return [*found, *([_list(notes)] if notes else [])]


def _head(column: tables.Column) -> str:
    if not column.group:
        return escape(column.title)
    note = f"<br>{escape(column.note)}" if column.note else ""
    return f"{escape(column.title)}<br>{escape(column.group)}{note}"


def _table(heads: list[str], columns: list[tables.Column], table: list[list[tables.Cell]]) -> str:
    lines = [heads, ["---:" if column.number else "---" for column in columns]]
    for cells in table:
        lines.append([_cell(cell) for cell in cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: tables.Cell) -> str:
    note = f"<br><sub>{escape(cell.note, begins=False)}</sub>" if cell.note else ""
    return escape(cell.text, begins=False) + note


def _differences(study: StudyView) -> list[str]:
    lines = [
        f"| {escape(arm.label)} | {escape(path)} | {escape(of_base)} | {escape(own)} |"
        for arm in study.arms
        for path, of_base, own in arm.differences
    ]
    head = ["| Arm | Key | Base | Arm's |", "| --- | --- | --- | --- |"]
    return ["## Recipe differences", "\n".join(head + lines)] if lines else []


def _failed(study: StudyView) -> list[str]:
    blocks = []
    for arm, run in study.runs:
        if run.error:
            code = "" if run.exit_code is None else f": exit code {run.exit_code}"
            blocks += [f"{escape(arm.label)}, seed {run.seed}{code}", fenced(run.error)]
    return ["## Failed runs", *blocks] if blocks else []


def _not_run(study: StudyView) -> list[str]:
    lines = [f"**{escape(', '.join(runs))}:** {escape(why)}" for why, runs in answer.not_run(study)]
    lines += [
        f"{escape(folder)} is stale: the study has no such arm any more, and nothing above is from"
        " there."
        for folder in study.stale
    ]
    return ["## Not run", _list(lines)] if lines else []


def _runs(study: StudyView) -> list[str]:
    columns = tables.run_columns(study)
    if not study.runs:
        return []
    table = _table([escape(c.title) for c in columns], columns, tables.run_rows(study))
    return ["## Every run", f"<details><summary>{len(study.runs)} runs</summary>", table, _END]


_END = "</details>"


def _provenance(study: StudyView) -> list[str]:
    lines = []
    for group, pairs in study.provenance:
        values = [f"{escape(key)} {escape(value)}".strip() for key, value in pairs]
        lines.append(f"{escape(group)}: {', '.join(values)}")
    if study.seeds:
        lines.append(f"seeds: {', '.join(map(str, study.seeds))}")
    if study.threads is not None:
        lines.append(f"threads of each run: {study.threads}")
    if time := wall_time(study):
        lines.append(f"time of all runs: {time}")
    return ["## Provenance", _list(lines)] if lines else []


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
