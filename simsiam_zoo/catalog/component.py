"""The descriptors that a plugin yields: what a component is called and what it takes.

They are plain values. Making one imports nothing: the body, `target`, is imported when a model is
built, so that listing a thousand components costs no more than reading their names.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simsiam_zoo.errors import InputError, PluginError, did_you_mean

PARTS = ("backbone", "projector", "predictor", "gradient", "loss")
"""The five parts of a Siamese network, in the order in which data meets them."""

_AROUND = ("augmentation", "dataset", "logger", "launcher", "protocol", "format")
KINDS = (*PARTS, *_AROUND, "preset", "study")
"""Everything that a plugin can supply."""

HOST_SUPPLIED: Mapping[str, frozenset[str]] = {
    "backbone": frozenset({"image_size"}),
    "projector": frozenset({"in_dim"}),
    "predictor": frozenset({"dim"}),
    "gradient": frozenset({"dim", "dataset_size", "steps_per_epoch", "steps"}),
    "loss": frozenset({"dim"}),
    "dataset": frozenset({"stream"}),
}
"""Keywords that the host gives to a factory which declares them; no param may have such a name."""

CONTRACTS: Mapping[str, str] = {
    "backbone": "images [N, 3, H, W] to features [N, in_dim]",
    "projector": "features [N, in_dim] to z [N, out_dim]; has the attribute `out_dim`",
    "predictor": "z [N, dim] to p [N, dim]",
    "gradient": "a `GradientPolicy`: a batch to a `StepOutput`, pairs of [N, dim] each",
    "loss": "(prediction, target), both [N, dim] float32, to a scalar; may be a `Loss`",
    "augmentation": "draws a `View`, whose box lies in the image; the host renders it",
    "dataset": "gives a `Dataset`: shards to train on and to test on, and class names",
    "protocol": "`FeatureSplits` (features and labels) to a list of `Score`",
    "logger": "writes each row of metrics.jsonl once more, also where a run goes on",
    "launcher": "starts the commands of a study and tells how they ended",
    "format": "an `ExportFormat`: writes a backbone for another library, and says how to load it",
    "preset": 'a TOML recipe in the package, `target="package:file.toml"`; it may say `extends`',
    "study": 'a TOML study in the package, `target="package:file.toml"`',
}
"""What a component of each kind has to do, in a few words; `testing/` checks it."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_PARAM_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[\w./-]+\Z")
_TYPES = (bool, int, float, str)
_BOOLS = {"true": True, "false": False}

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Param:
    """One parameter of a component: its type, default, bounds and meaning.

    Args:
        name: the keyword that the factory takes, and the key in a recipe.
        type: `bool`, `int`, `float` or `str`.
        default: a value of that type, or None where the component works it out itself (TOML has
            no null, so None is spelt by leaving the key away).
        help: a few words, shown by `simsiam-zoo show`.
        min, max: inclusive bounds of a number.
        choices: the only values allowed, if not empty.
        words: texts that a number may be instead: `auto`, `epoch`.
        operational: the value says where or how, not what (a path, say): it is not part of a
            run's identity and may change on resume.
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
        if self.type not in _TYPES:
            raise ValueError(f"parameter {self.name}: the type is bool, int, float or str")
        if self.words and self.type not in (int, float):
            raise ValueError(f"parameter {self.name}: words stand in for a number")
        if self.default is not None:
            self.check(self.default, where=f"the default of parameter {self.name}")

    def parse(self, text: str, where: str) -> Value:
        """The value that `text` spells on a command line. Raises InputError."""
        if self.type is str or text in self.words:
            return self.check(text, where)
        try:
            value: Value = _BOOLS[text.lower()] if self.type is bool else self.type(text)
        except (KeyError, ValueError):
            raise InputError(f"{where} is {self.describe()}, not {text!r}") from None
        return self.check(value, where)

    def check(self, value: object, where: str) -> Value:
        """`value` if it has the type and lies in the bounds (an int widens to float), or is a word.

        Raises:
            InputError: it is neither.
        """
        if isinstance(value, str) and value in self.words:
            return value
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            raise InputError(f"{where} is {self.describe()}, not {value!r}")
        if self.choices and value not in self.choices:
            names = [str(choice) for choice in self.choices]
            hint = did_you_mean(str(value), names)
            raise InputError(f"{where} is {self.describe()}, not {value!r}", hint)
        if isinstance(value, int | float):
            too_low = self.min is not None and value < self.min
            too_high = self.max is not None and value > self.max
            if too_low or too_high or not math.isfinite(value):
                raise InputError(f"{where} is {self.describe()}, not {value!r}")
        return value  # type: ignore[return-value]  # type(value) is one of _TYPES by now

    def describe(self) -> str:
        """The valid values in words: `an int >= 1`, `one of both, one`, `an int, or auto`."""
        return ", or ".join([self._describe_plain(), *self.words])

    def _describe_plain(self) -> str:
        if self.choices:
            return f"one of {', '.join(str(choice) for choice in self.choices)}"
        words = {bool: "true or false", int: "an int", float: "a number", str: "a string"}
        text = words[self.type]
        if self.min is not None and self.max is not None:
            return f"{text} from {self.min:g} to {self.max:g}"
        if self.min is not None:
            return f"{text} >= {self.min:g}"
        if self.max is not None:
            return f"{text} <= {self.max:g}"
        return text


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
        _check_descriptor(self.kind, self.name, self.target, self.params)
        _check_texts(f"{self.kind} {self.name}", self.summary, self.reference)

    def load(self) -> Any:
        """Import the target and return it. Raises PluginError, naming the component."""
        return load_target(self.target, f"{self.kind} {self.name}")


@dataclass(frozen=True)
class Family:
    """A whole library of components behind one prefix: `timm:convnext_tiny`.

    The target is a factory like a component's that takes the member's `name` besides.

    Args:
        kind: one of `KINDS`.
        prefix: what stands before the colon.
        names: gives the valid names; must not import torch. Called at most once.
        target: `"module:attribute"`, called with `name=` and the params.
        summary: one line.
        params: what every member takes.
        reference: where it comes from.
        pretrained: gives those of the names for which the library has pretrained weights; must not
            import torch. None where it has none, or it is not known.

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
        _check_descriptor(self.kind, self.prefix, self.target, self.params)
        _check_texts(f"family {self.prefix}", self.summary, self.reference)
        if not callable(self.names):
            raise ValueError(f"family {self.prefix}: names must be callable")
        if self.pretrained is not None and not callable(self.pretrained):
            raise ValueError(f"family {self.prefix}: pretrained must be callable")

    def load(self) -> Any:
        """Import the target and return it. Raises PluginError, naming the family."""
        return load_target(self.target, f"{self.kind} {self.prefix}:")


def _check_descriptor(kind: str, name: str, target: str, params: tuple[Param, ...]) -> None:
    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS, f"The kinds are {', '.join(KINDS)}.")
        raise ValueError(f"unknown kind {kind!r}. {hint}")
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"{kind} {name!r}: a name is lower case letters, digits, '.', '_', '-'")
    if not isinstance(target, str) or not _TARGET.match(target):
        raise ValueError(f"{kind} {name}: target is 'module:attribute', not {target!r}")
    if not isinstance(params, tuple) or not all(isinstance(param, Param) for param in params):
        raise ValueError(f"{kind} {name}: params is a tuple of Param; one alone needs a comma")
    seen: set[str] = set()
    for param in params:
        if param.name in seen:
            raise ValueError(f"{kind} {name}: parameter {param.name} is declared twice")
        if param.name in HOST_SUPPLIED.get(kind, frozenset()):
            raise ValueError(f"{kind} {name}: {param.name} is supplied by the host")
        seen.add(param.name)


def _check_texts(what: str, summary: object, reference: object) -> None:
    if not isinstance(summary, str) or not isinstance(reference, str | None):
        raise ValueError(f"{what}: summary and reference are text")


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
    except BaseException as error:  # a stranger's module may raise anything, SystemExit included
        raise PluginError(
            f"{what} cannot be used: importing {target} failed ({type(error).__name__}: {error})"
        ) from error
    return body
