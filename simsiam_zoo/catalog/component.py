"""What a plugin yields, the hook that yields it, and what becomes of it in the catalogue.

All are plain values. The body, `target`, is imported when a model is built: listing components
costs no more than reading their names.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pluggy

from simsiam_zoo.catalog.param import Param, Value
from simsiam_zoo.errors import PluginError, ZooError, describe_error, did_you_mean

PARTS = ("backbone", "projector", "predictor", "gradient", "loss")
"""The five parts of a Siamese network, in the order in which data meets them."""

_AROUND = ("augmentation", "dataset", "logger", "launcher", "protocol", "format")
KINDS = (*PARTS, *_AROUND, "preset", "study")
"""Everything that a plugin can supply."""

FILE_KINDS = ("preset", "study")
"""The kinds whose target is a TOML file; that of the others is a factory."""

HOST_SUPPLIED: Mapping[str, frozenset[str]] = {
    "backbone": frozenset({"image_size", "channels", "view_sizes"}),
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
    """One named thing that a plugin supplies. A ValueError says what breaks the contract.

    Args:
        kind, name: `backbone`, `loss` or another kind; lower case, unique within its kind and
            distribution.
        target: `"module:attribute"`, imported on build; of presets and studies
            `"package:file.toml"`.
        summary: one line.
        params: what it takes.
        reference: where it comes from (a paper, a URL).
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
        kind, prefix: as of a `Component`; what stands before the colon.
        names: gives the valid names; must not import torch. Called at most once.
        target: `"module:attribute"`, called with `name=` besides the params.
        summary, params, reference: as of a `Component`.
        pretrained: gives those of the names for which the library has pretrained weights, and may
            import it. None where it has none, or it is not known.
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


@dataclass(frozen=True)
class Plugin:
    """One entry point (`name`, `module`), and what came of it.

    Args:
        distribution, version: who supplies it, normalized (PEP 503).
        api: the plugin API that it is written for, as its entry-point group says.
        status, cause: only an `ok` plugin has components; one line, why it is not ok.
        seconds: how long importing it and calling its hook took.
    """

    name: str
    module: str
    distribution: str
    version: str
    api: str
    status: Literal["ok", "broken", "incompatible", "disabled"] = "ok"
    cause: str | None = None
    components: tuple[Component | Family, ...] = ()
    seconds: float = 0.0

    @property
    def supplier(self) -> str:
        """Distribution and version, as messages show them."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class CatalogEntry:
    """A component, a family or one of a family's members, and who supplies it.

    Args:
        component, plugin: what was yielded, and by which plugin.
        member: the name within the family.
        call: how a user writes it: `mlp`, `other-zoo/mlp`; a family ends in `:*`.
        status: `ok`: its bare name is its own. `shadowed`: the bare name is a built-in's.
            `ambiguous`: other third parties supply the name too, and none of them has it.
    """

    component: Component | Family
    plugin: Plugin
    member: str | None = None
    call: str = ""
    status: Literal["ok", "shadowed", "ambiguous"] = "ok"

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.component.kind

    @property
    def name(self) -> str:
        """The component's name, or the family's prefix."""
        return self.component.name

    @property
    def is_family(self) -> bool:
        """Whether this is a whole library behind one prefix."""
        return isinstance(self.component, Family)

    @property
    def distribution(self) -> str:
        """Who supplies it."""
        return self.plugin.distribution

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.plugin.version

    @property
    def full(self) -> str:
        """The name that means this whatever else is installed: `simsiam-zoo/timm:vgg16`."""
        return f"{self.distribution}/{self.name}{'' if self.member is None else f':{self.member}'}"

    @property
    def note(self) -> str | None:
        """How to call it where its bare name does not do; None where it does."""
        if self.status == "ok":
            return None
        owner = "is built in" if self.status == "shadowed" else "is supplied by others too"
        return f"the name {self.name} {owner}: write {self.call}"


@dataclass(frozen=True)
class Resolved:
    """One component, chosen and complete: everything that building it needs.

    `name` is the shortest spelling that means this and nothing else; `params` are all.
    """

    name: str
    entry: CatalogEntry
    params: Mapping[str, Value]

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.entry.kind

    @property
    def id(self) -> str:
        """`distribution/name` or `distribution/family:name`, whatever else is installed."""
        return self.entry.full

    @property
    def spec(self) -> str:
        """What gives this very component: its name, and those params that have no default value."""
        given = [
            f"{param.name}={param.spell(self.params[param.name])}"
            for param in self.entry.component.params
            if self.params[param.name] != param.default
        ]
        return f"{self.name}:{','.join(given)}" if given else self.name

    def create(self, **host: object) -> Any:
        """Import the target and call it with its params, `name=` if it is a family's, and those of
        the keywords `host` that it declares.

        Raises PluginError where it cannot be imported or called as its descriptor says, or fails,
        and whatever ZooError it raises itself.
        """
        target = self.entry.component.target
        factory = load_target(target, f"{self.kind} {self.id}")
        arguments: dict[str, object] = dict(self.params)
        if self.entry.member is not None:
            arguments["name"] = self.entry.member
        try:
            signature = inspect.signature(factory)
            declared = signature.parameters
            arguments |= {key: value for key, value in host.items() if key in declared}
            signature.bind(**arguments)
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"{self.kind} {self.id}: {target} does not take what its descriptor says: {error}",
                f"This is a mistake in {self.entry.plugin.supplier}, not in what you asked for.",
            ) from error
        try:
            return factory(**arguments)
        except ZooError:
            raise
        except Exception as error:
            raise PluginError(
                f"{self.kind} {self.id} could not be built: {describe_error(error, target)}"
            ) from error


def load_target(target: str, what: str) -> Any:
    """Import `module:attribute`. Raises PluginError, whatever the import raised."""
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
