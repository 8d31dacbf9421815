"""Pydantic's findings, rewritten for people: which key, what is wrong with it, the way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from simsiam_zoo.errors import InputError, did_you_mean

_Model = TypeVar("_Model", bound=BaseModel)

_WANTED = {
    "int_type": "an int",
    "int_parsing": "an int",
    "int_from_float": "an int",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "tuple_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
    "finite_number": "a finite number",
    "greater_than": "> {gt:g}",
    "greater_than_equal": ">= {ge:g}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le:g}",
    "literal_error": "{expected}",
}
"""Pydantic's type of error → what the value has to be, in the words of `Param.describe`."""

_MEMBER = re.compile(r"(constrained-)?(bool|int|float|str)$|.*\[")
"""How pydantic calls the member of a union in the path of an error."""


def validated(
    model: type[_Model],
    values: object,
    where: str | Callable[[list[str]], str] = "",
    whole: str = "a recipe",
) -> _Model:
    """A `model` of plain values. InputError: the first thing that is wrong in them, for people.

    `where` names the file, or tells it of a key's path; `whole` has no key that is unknown at the
    top.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        findings = error.errors(include_url=False)
    path = _as_written(findings[0]["loc"])
    found = _explained(findings, path, model, whole)
    raise found.at(where if isinstance(where, str) else where(path))


def _explained(
    findings: list[ErrorDetails], path: list[str], model: type[BaseModel], whole: str
) -> InputError:
    finding, dotted = findings[0], ".".join(path)
    value, kind = finding["input"], finding["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, model, whole)
    if kind == "missing":  # only lists of a fixed length can be so
        return InputError(f"{'.'.join(path[:-1])} has too few values: {value!r}")
    if kind == "too_long":
        return InputError(f"{dotted} has too many values: {value!r}")
    if kind not in _WANTED:
        shown = "" if isinstance(value, dict) else f" = {value!r}"
        text = finding["msg"].removeprefix("Value error, ")
        return InputError(f"{dotted}{shown}: {text}" if dotted else text)  # else it is of the whole
    # One finding for each member of a union that the value failed to be.
    wanted = " or ".join(
        dict.fromkeys(
            _WANTED[other["type"]].format(**other.get("ctx", {}))
            for other in findings
            if other["type"] in _WANTED and _as_written(other["loc"]) == path
        )
    )
    shown = "a table" if isinstance(value, dict) else repr(value)
    near = did_you_mean(value, re.findall("'(.+?)'", wanted)) if isinstance(value, str) else None
    return InputError(f"{dotted} is {wanted}, not {shown}", near)


def _unknown_key(path: list[str], model: type[BaseModel], whole: str) -> InputError:
    section, key = ".".join(path[:-1]), path[-1]
    where = f"[{section}] has no key" if section else f"{whole} has no key"
    fields = _table_at(model, path[:-1]).model_fields
    keys = [field.alias or name for name, field in fields.items()]  # as a file spells them
    # `epochs` for `training.epochs`
    elsewhere = [dotted for dotted in _dotted(model) if dotted.rpartition(".")[2] == key]
    hint = f"Did you mean {' or '.join(elsewhere)}?" if elsewhere else None
    hint = hint or did_you_mean(key, keys, f"Its keys are {', '.join(keys)}.")
    return InputError(f"{where} {key!r}", hint)


def _as_written(loc: tuple[int | str, ...]) -> list[str]:
    """The path without the members of unions that pydantic tried: a user wrote no such key."""
    return [str(step) for step in loc if isinstance(step, int) or not _MEMBER.match(step)]


def _table_at(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for step in path:
        field = model.model_fields.get(step)
        if field is not None:  # else a key of a mapping, `optim.parts.<part>`
            kinds = (field.annotation, *get_args(field.annotation))  # of a mapping or a union
            model = next((kind for kind in kinds if _is_table(kind)), model)
    return model


def _dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        if _is_table(field.annotation):
            yield from _dotted(field.annotation, f"{prefix}{name}.")


def _is_table(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
