"""Time as people read it. No torch here."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`42 s`, `3:05`, `2:03:00`; nothing less than `0 s`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
