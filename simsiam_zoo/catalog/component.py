"""The descriptors that a plugin yields, plain values, and the hook that yields them.

The body, `target`, is imported when a model is built: listing costs no more than reading names.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from simsiam_zoo.catalog.param import Param
from simsiam_zoo.errors import PluginError, describe_error, did_you_mean

PARTS = ("backbone", "projector", "predictor", "gradient", "loss")
"""The five parts of a Siamese network, in the order in which data meets them."""

_AROUND = ("augmentation", "dataset", "logger", "launcher", "protocol", "format")
KINDS = (*PARTS, *_AROUND, "preset", "study")
"""Everything that a plugin can supply."""

FILE_KINDS = ("preset", "study")
"""The kinds whose target is a TOML file; that of the others is a factory."""

HOST_SUPPLIED: Mapping[str, frozenset[str]] = {
    "backbone": frozenset({"image_size"}),
    "projector": frozenset({"in_dim"}),
    "predictor": frozenset({"dim"}),
    "gradient": frozenset({"dim", "dataset_size", "steps_per_epoch", "steps"}),
    "loss": frozenset({"dim"}),
    "dataset": frozenset({"stream"}),
}
"""Keywords that the host gives to a factory which declares them; no param may have such a name."""

PROJECT = "simsiam_zoo"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of the hook of the same name."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[\w./-]+\Z")


@hookspec
def zoo_components() -> Iterable[Component | Family]:  # type: ignore[empty-body]
    """Yield what the plugin supplies. All of it or, should this raise, none of it is used."""


@dataclass(frozen=True)
class Component:
    """One named thing that a plugin supplies.

    Args:
        kind: one of `KINDS`.
        name: lower case; unique within its kind and distribution.
        target: `"module:attribute"`, imported on build; for a preset or a study
            `"package:file.toml"`.
        summary: one line.
        params: what it takes.
        reference: where it comes from (a paper, a URL).

    Raises:
        ValueError: the descriptor breaks the contract.
    """

    kind: str
    name: str
    target: str
    summary: str
    params: tuple[Param, ...] = ()
    reference: str | None = None

    def __post_init__(self) -> None:
        _check_descriptor(self)


@dataclass(frozen=True)
class Family:
    """A whole library of components behind one prefix: `timm:convnext_tiny`.

    Args:
        kind: one of `KINDS`.
        prefix: what stands before the colon.
        names: gives the valid names; must not import torch. Called at most once.
        target: `"module:attribute"`, called with `name=` besides the params.
        summary, params, reference: as of a `Component`.
        pretrained: gives those of the names for which the library has pretrained weights, and may
            import it. None where it has none, or it is not known.

    Raises:
        ValueError: the descriptor breaks the contract.
    """

    kind: str
    prefix: str
    names: Callable[[], Iterable[str]]
    target: str
    summary: str = ""
    params: tuple[Param, ...] = ()
    reference: str | None = None
    pretrained: Callable[[], Iterable[str]] | None = None

    def __post_init__(self) -> None:
        _check_descriptor(self)
        if not callable(self.names) or not (self.pretrained is None or callable(self.pretrained)):
            raise ValueError(f"family {self.prefix}: names and pretrained are callable")

    @property
    def name(self) -> str:
        """The prefix."""
        return self.prefix


def load_target(target: str, what: str) -> Any:
    """Import `module:attribute`.

    Raises:
        PluginError: the import failed, whatever it raised, or the attribute is not there.
    """
    module, _, attribute = target.partition(":")
    try:
        body: Any = importlib.import_module(module)
        for name in attribute.split("."):
            body = getattr(body, name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # plugin code may raise anything, SystemExit included
        cause = describe_error(error, module)
        raise PluginError(f"{what} cannot be used: importing {target} failed ({cause})") from error
    return body


def _check_descriptor(item: Component | Family) -> None:
    """Raise ValueError where a descriptor breaks the contract."""
    kind, name, target, params = item.kind, item.name, item.target, item.params
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS, f"The kinds are {', '.join(KINDS)}.")
        raise ValueError(f"unknown kind {kind!r}. {hint}")
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{kind} {name!r}: a name is lower case letters, digits, '.', '_', '-'")
    if not isinstance(target, str) or not _TARGET.match(target):
        raise ValueError(f"{kind} {name}: target is 'module:attribute', not {target!r}")
    if not isinstance(item.summary, str) or not isinstance(item.reference, str | None):
        raise ValueError(f"{kind} {name}: summary and reference are text")
    if len(item.summary.splitlines()) > 1:
        raise ValueError(f"{kind} {name}: the summary is one line")
    if not isinstance(params, tuple) or not all(isinstance(param, Param) for param in params):
        raise ValueError(f"{kind} {name}: params is a tuple of Param; one alone needs a comma")
    names = [param.name for param in params]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{kind} {name}: parameter {repeated[0]} is declared twice")
    if reserved := sorted(HOST_SUPPLIED.get(kind, frozenset()).intersection(names)):
        raise ValueError(f"{kind} {name}: {reserved[0]} is supplied by the host")
