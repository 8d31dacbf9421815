"""The names of timm's models, read from its source: no import of timm, hence none of torch."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

# No `^`: where the pattern begins with plain text, the search for it is five times as fast.
_REGISTERED = re.compile(rb"\n@register_model\s+def (\w+)")

_CONFIGURED = re.compile(rb"""\n +['"](\w+)(?:\.[\w.]+)?['"]: *_?\w*[{(]""")
"""`'resnet18.a1_in1k': _cfg(`: the configuration of one model with certain weights begins."""

_WEIGHTS = re.compile(
    rb"""^[^#\n]*?\b(?:url|hf_hub_id|file)['"]?\s*[=:]\s*f?['"]\w""", re.MULTILINE
)
"""Where the weights are, in no comment and not left empty: what timm's `has_weights` asks."""

_RENAMED = re.compile(rb"default_cfgs\[\w+\.replace\('(\w+)', '(\w+)'\)\]")
_SUFFIXED = re.compile(rb"for suffix in \(([^)]*)\)")


def timm_names() -> list[str]:
    """Every architecture that the installed timm registers, sorted; empty where timm is missing.

    Tens of milliseconds against the seconds that importing timm takes. A test holds it equal to
    `timm.list_models()`.
    """
    found = {name for source in _sources() for name in _REGISTERED.findall(source)}
    return sorted(name.decode() for name in found)


def timm_pretrained() -> list[str]:
    """Those of `timm_names` for which timm has pretrained weights, sorted.

    None of them is without: a test compares with `timm.list_models(pretrained=True)`. A few are
    missed (6 of 1,151 in timm 1.0.31), whose configurations its source computes.
    """
    found: set[bytes] = set()
    for source in _sources():
        _, *entries = _CONFIGURED.split(source)
        having = {
            name
            for name, text in zip(entries[::2], entries[1::2], strict=True)
            if _WEIGHTS.search(text.partition(b"\n}")[0])
        }
        # Two ways in which timm copies configurations for models of other names.
        for old, new in _RENAMED.findall(source):
            having |= {name.replace(old, new) for name in having}
        for suffixes in _SUFFIXED.findall(source):
            having |= {n + s for n in having for s in re.findall(rb"'(\w+)'", suffixes)}
        found |= having.intersection(_REGISTERED.findall(source))
    return sorted(name.decode() for name in found)


def _sources() -> list[bytes]:
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        return []
    paths = Path(spec.origin).with_name("models").glob("*.py")
    return [b"\n" + path.read_bytes() for path in paths]
