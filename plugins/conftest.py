"""Each package's tests see that package and the built-in components, whatever else is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def _this_package_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    distribution = request.path.relative_to(PLUGINS).parts[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMSIAM_ZOO_PLUGINS", distribution)
        yield
