"""What tests of several questions start from."""

from pathlib import Path

import pytest

from tests.planted import planted_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the planted model and its two pictures."""
    return planted_folder(tmp_path_factory.mktemp("place"))
