"""A component's parameters, and what a user writes for them: `mlp:hidden_dim=256`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simsiam_zoo.errors import InputError, did_you_mean

Value = bool | int | float | str | list[Any] | None

_PARAM_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_WORDS = {bool: "true or false", int: "an int", float: "a number", str: "a string"}
_BOOLS = {"true": True, "false": False}
_SEPARATOR = "/"  # between the items of a list in a spec, where a comma ends the parameter
_LIST = f"Write a list as 1{_SEPARATOR}2, in TOML as [1, 2]."


class Text(str):
    """A value as typed on a command line: its type is found where it is used."""

    __slots__ = ()


@dataclass(frozen=True)
class Param:
    """One parameter of a component: its type, default, bounds and meaning.

    The default is stated here alone: the factory is always given every parameter.

    Args:
        name: the keyword that the factory takes, and the key in a recipe.
        type: `bool`, `int`, `float` or `str`, or a list of one of them, such as `list[float]`. A
            list is an array in TOML, and `lrs=0.1/0.3` in a spec.
        default: a value of that type, or None where the component works it out itself (TOML has
            no null, so None is spelt by leaving the key away).
        help: a few words, shown by `simsiam-zoo show`.
        min, max: inclusive bounds of a number, or of each number in a list.
        choices: the only values allowed, if not empty.
        words: texts that a number may be instead: `auto`, `epoch`.
        operational: the value says where or how, not what (a path, say): it is not part of a
            run's identity and may change on resume.

    Raises:
        ValueError, InputError: the declaration is wrong; the default breaks the bounds.
    """

    name: str
    type: type
    default: Value
    help: str = ""
    min: float | None = None
    max: float | None = None
    choices: tuple[Value, ...] = ()
    operational: bool = False
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _PARAM_NAME.match(self.name) or self.name == "name":
            raise ValueError(f"{self.name!r} cannot name a parameter (lower_case, not 'name')")
        if self.item_type not in _WORDS:
            raise ValueError(
                f"parameter {self.name}: the type is bool, int, float or str, or a list of one"
            )
        if self.words and self.type not in (int, float):
            raise ValueError(f"parameter {self.name}: words stand in for a number")
        if self.default is not None:
            self.check(self.default, where=f"the default of parameter {self.name}")

    @property
    def is_list(self) -> bool:
        """Whether its value is a list."""
        return getattr(self.type, "__origin__", None) is list

    @property
    def item_type(self) -> Any:
        """The type of a list's items; of anything else, the type itself."""
        return self.type.__args__[0] if self.is_list else self.type  # type: ignore[attr-defined]

    @property
    def type_name(self) -> str:
        """The type as Python spells it: `int`, `list[float]`."""
        return str(self.type) if self.is_list else self.type.__name__

    def parse(self, text: str, where: str) -> Value:
        """The value that `text` spells on a command line. Raises InputError."""
        if self.is_list and text.lstrip().startswith("["):
            return self.check(_toml(text), where)
        texts = text.split(_SEPARATOR) if self.is_list else [text]
        values = [self._parse_one(each, where) for each in texts]
        return self.check(values if self.is_list else values[0], where)

    def spell(self, value: Value) -> str:
        """The text that `parse` turns into `value`."""
        if isinstance(value, list | tuple):
            return _SEPARATOR.join(self.spell(item) for item in value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    def check(self, value: object, where: str) -> Value:
        """`value`, where need be an int as a float. Raises InputError if it is not valid."""
        if not self.is_list:
            return self._check_one(value, where)
        if not isinstance(value, list | tuple) or not value:
            raise InputError(f"{where} is {self.describe()}, not {value!r}", _LIST)
        return [self._check_one(item, where) for item in value]

    def describe(self) -> str:
        """The valid values in words: `an int >= 1`, `one of both, one`, `an int, or auto`."""
        text = _WORDS[self.item_type]
        if self.choices:
            text = f"one of {', '.join(map(str, self.choices))}"
        elif self.min is not None and self.max is not None:
            text += f" from {self.min:g} to {self.max:g}"
        elif self.min is not None:
            text += f" >= {self.min:g}"
        elif self.max is not None:
            text += f" <= {self.max:g}"
        text = ", or ".join([text, *self.words])
        return f"a list, each {text}" if self.is_list else text

    def _parse_one(self, text: str, where: str) -> Value:
        if self.item_type is str or text in self.words:
            return text
        try:
            value: Value = _BOOLS[text.lower()] if self.item_type is bool else self.item_type(text)
        except (KeyError, ValueError):
            left_out = "Leave it out, and the component finds a value."
            hint = _LIST if self.is_list else left_out if self.default is None else None
            raise InputError(f"{where} is {self.describe()}, not {text!r}", hint) from None
        return value

    def _check_one(self, value: Any, where: str) -> Value:
        if isinstance(value, str) and value in self.words:
            return value
        if self.item_type is float and type(value) is int:
            value = float(value)
        right, hint = type(value) is self.item_type, None
        if right and self.choices and value not in self.choices:
            right, hint = False, did_you_mean(str(value), map(str, self.choices))
        if right and isinstance(value, int | float):
            low = -math.inf if self.min is None else self.min
            high = math.inf if self.max is None else self.max
            right = low <= value <= high and math.isfinite(value)
        if not right:
            raise InputError(f"{where} is {self.describe()}, not {value!r}", hint)
        return value  # type: ignore[no-any-return]  # one of the four types by now


def _toml(text: str) -> object:
    """The value that TOML reads there; the text itself where it reads none."""
    import tomllib  # not at the top: a listing does not need it

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def split_spec(spec: str) -> tuple[str, dict[str, Text]]:
    """Split `[distribution/][family:]name[:key=value,...]` into the name and its parameters' texts.

    `"mlp:hidden_dim=256"` → `("mlp", {"hidden_dim": "256"})`. Raises InputError.
    """
    usage = "Write NAME:key=value,key=value."
    head, equals, _ = spec.partition("=")
    name, colon, _ = head.rpartition(":") if equals else (spec, "", "")
    if equals and not colon:
        raise InputError(f"{spec!r} has no name before its parameters", usage)
    if not name.strip(" :/"):
        raise InputError(f"{spec!r} names no component")
    params: dict[str, Text] = {}
    for item in spec[len(name) + 1 :].split(",") if equals else ():
        key, equals, value = (text.strip() for text in item.partition("="))
        if not key or not equals:
            comma = f"{usage} {_LIST} A text with a comma is set by --set KIND.KEY=TEXT."
            raise InputError(f"{item.strip()!r} in {spec!r} is no parameter", comma)
        if key in params:
            raise InputError(f"{spec!r} gives {key} twice")
        params[key] = Text(value)
    return name.strip(), params


def complete_params(
    what: str, params: tuple[Param, ...], given: Mapping[str, object]
) -> dict[str, Value]:
    """All of a component's `params`, in its own order, the defaults filled in.

    `what` is the component in messages: `predictor mlp`. Raises InputError: a key of the `given`
    is unknown, a value not valid.
    """
    known = {param.name: param for param in params}
    for key in given:
        if key not in known:
            otherwise = f"It takes {', '.join(known)}." if known else "It takes no parameters."
            hint = did_you_mean(key, known, otherwise)
            raise InputError(f"{what} has no parameter {key!r}", hint)
    complete: dict[str, Value] = {}
    for key, param in known.items():
        where = f"{key} of {what}"
        value = given.get(key, param.default)
        if isinstance(value, Text):
            complete[key] = param.parse(str(value), where)
        elif value is None and param.default is None:  # the component works it out
            complete[key] = None
        else:
            complete[key] = param.check(value, where)
    return complete
