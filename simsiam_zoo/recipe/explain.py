"""Pydantic's findings, rewritten for people: which key, what is wrong with it, the way out."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from simsiam_zoo.errors import InputError, did_you_mean


def explain(error: ValidationError, model: type[BaseModel]) -> InputError:
    """One InputError for the first thing that is wrong."""
    finding = error.errors(include_url=False)[0]
    path = [str(step) for step in finding["loc"] if not _is_union_branch(step)]
    dotted = ".".join(path)
    if finding["type"] == "extra_forbidden":
        keys = _keys_at(model, path[:-1])
        section = ".".join(path[:-1])
        where = f"[{section}] has no key" if section else "a recipe has no key"
        hint = did_you_mean(path[-1], keys, f"Its keys are {', '.join(keys)}.")
        return InputError(f"{where} {path[-1]!r}", hint)
    message = finding["msg"].removeprefix("Value error, ").removeprefix("Input ")
    value = finding["input"]
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return InputError(f"{dotted}{shown}: {message[:1].lower()}{message[1:]}")


def _is_union_branch(step: int | str) -> bool:
    """Pydantic names the tried member of a union in the path; a user wrote no such key."""
    return isinstance(step, str) and (step in {"int", "float", "str"} or "[" in step)


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for step in path:
        field: Any = model.model_fields.get(step)
        if field is None:
            continue  # a key of a mapping, `optim.parts.<part>`: its values have the keys
        inner = [
            kind
            for kind in (field.annotation, *get_args(field.annotation))
            if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if inner:
            model = inner[0]
    return list(model.model_fields)
