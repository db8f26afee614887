"""Fixtures that all kinds of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ticker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare-metal guest as a kernel file."""
    from instar.image.ticker import ticker_image

    path = tmp_path_factory.mktemp("guest") / "ticker.bin"
    path.write_bytes(ticker_image())
    return path
