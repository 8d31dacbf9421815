"""What a user writes → a name and checked parameters: `mlp:hidden_dim=256`."""

from __future__ import annotations

from collections.abc import Mapping

from simsiam_zoo.catalog.component import Param, Value
from simsiam_zoo.errors import InputError, did_you_mean


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split `[distribution/][family:]name[:key=value,...]` into the name and its parameters.

    `"mlp:hidden_dim=256"` → `("mlp", {"hidden_dim": "256"})`. The values are still text.

    Raises:
        InputError: there is no name, a parameter has no value, or a key comes twice.
    """
    head, equals, _ = spec.partition("=")
    if not equals:
        return _stated(spec, spec.strip()), {}
    name, colon, _ = head.rpartition(":")
    if not colon:
        raise InputError(
            f"{spec!r} has no name before its parameters", "Write NAME:key=value,key=value."
        )
    params: dict[str, str] = {}
    for item in spec[len(name) + 1 :].split(","):
        key, equals, value = (text.strip() for text in item.partition("="))
        if not key or not equals:
            raise InputError(
                f"{item.strip()!r} in {spec!r} is no parameter", "Write NAME:key=value,key=value."
            )
        if key in params:
            raise InputError(f"{spec!r} gives {key} twice")
        params[key] = value
    return _stated(spec, name.strip()), params


def complete_params(
    what: str,
    params: tuple[Param, ...],
    texts: Mapping[str, str],
    values: Mapping[str, object],
) -> dict[str, Value]:
    """All of a component's parameters, in its own order, the defaults filled in.

    Args:
        what: the component in words, for messages: `predictor mlp`.
        params: what it takes.
        texts: values from a command line, to be parsed.
        values: typed values, to be checked.

    Raises:
        InputError: an unknown key (with the nearest one), a wrong type, a value out of bounds, or
            a key that both `texts` and `values` give.
    """
    known = {param.name: param for param in params}
    for key in (*texts, *values):
        if key not in known:
            otherwise = f"It takes {', '.join(known)}." if known else "It takes no parameters."
            hint = did_you_mean(key, known, otherwise)
            raise InputError(f"{what} has no parameter {key!r}", hint)
    for key in texts:
        if key in values:
            raise InputError(f"{key} of {what} is given twice")
    return {key: _value(param, what, texts, values) for key, param in known.items()}


def _value(
    param: Param, what: str, texts: Mapping[str, str], values: Mapping[str, object]
) -> Value:
    where = f"{param.name} of {what}"
    if param.name in texts:
        return param.parse(texts[param.name], where)
    # None stands for "worked out by the component" and is valid only where it is the default.
    if values.get(param.name, param.default) is None and param.default is None:
        return None
    return param.check(values.get(param.name, param.default), where)


def _stated(spec: str, name: str) -> str:
    if not name.strip(":/"):
        raise InputError(f"{spec!r} names no component")
    return name
