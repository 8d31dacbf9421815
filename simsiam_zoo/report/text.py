"""Numbers and untrusted text as the report writes them."""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

MINUS = "−"
MISSING = "–"
NARROW = "\u00a0"
"""A space at which no line ends."""

_LONGEST = 4000  # characters of an error: its end says what happened

_TURNING = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Characters that turn the direction of the text after them too."""


def clean(value: object) -> str:
    """Text without control characters, lone surrogates and changes of the writing direction.

    Line ends stay; each other such character is shown as U+FFFD. It is not escaped for anything.
    """
    text = value if isinstance(value, str) else compact(value)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    return "".join("\ufffd" if _is_no_text(sign) else sign for sign in text)


def line(value: object) -> str:
    """`clean` on one line."""
    return " ".join(clean(value).split())


def tail(text: str) -> str:
    """The end of a long text."""
    return text if len(text) <= _LONGEST else "[…] " + text[-_LONGEST:]


def compact(value: object) -> str:
    """A recipe's value in one line, as JSON writes it; a string without quotes."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def finite(value: object) -> float | None:
    """The value as a float; None if it is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def fixed(value: float, digits: int, signed: bool = False) -> str:
    """A number with so many decimals and a typographic minus sign; zero has no sign."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def plus_minus(mean: float | None, std: float | None, digits: int = 2, scale: float = 1.0) -> str:
    """`95.5 ± 0.4`; without a standard deviation the mean alone."""
    if mean is None:
        return MISSING
    text = fixed(scale * mean, digits)
    return text if std is None else f"{text}{NARROW}±{NARROW}{fixed(scale * std, digits)}"


def percent(share: float | None) -> str:
    """0.955 as `95.5 %`."""
    return MISSING if share is None else f"{fixed(100 * share, 1)}{NARROW}%"


def tick(share: float) -> str:
    """A share on an axis: `95 %`, `97.5 %`."""
    return f"{round(100 * share, 3):g}{NARROW}%"


def quoted(name: str) -> str:
    """An arm's label in a sentence."""
    return f"“{name}”"


def points(share: float) -> str:
    """A difference of shares in points: -0.3 as `−30.0`."""
    return fixed(100 * share, 1, signed=True)


def between(low: float | None, high: float | None) -> str | None:
    """An interval of a difference of shares, in points."""
    return None if low is None or high is None else f"{points(low)} to {points(high)}"


def general(value: float) -> str:
    """Short for a figure without a scale of its own, such as the paper's."""
    return f"{value:.6g}".replace("-", MINUS)


def listing(names: list[str], most: int = 8) -> str:
    """`a, b and c`; of many the first and how many more."""
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} more"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def count(number: int, word: str, plural: str | None = None) -> str:
    """`1 arm`, `2 arms`."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def entries(value: Any) -> dict[str, Any]:
    """The value, if it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """The value, if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def _is_no_text(sign: str) -> bool:
    return (unicodedata.category(sign) in ("Cc", "Cs") and sign != "\n") or sign in _TURNING
