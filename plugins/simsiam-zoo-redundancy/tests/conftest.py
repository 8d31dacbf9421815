from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _with_the_package_it_depends_on() -> Iterator[None]:
    """Its presets have the augmentation of simsiam-zoo-byol."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMSIAM_ZOO_PLUGINS", "simsiam-zoo-redundancy,simsiam-zoo-byol")
        yield
