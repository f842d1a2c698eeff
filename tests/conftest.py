"""What every test runs under: no network, one thread, no screen, shapes and types checked."""

import os
import sys

# Set before torch, transformers and matplotlib are imported, here and in child processes.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", MPLBACKEND="Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests import checking

torch.set_num_threads(1)

# The hook sees only modules that are imported after it.
assert not any(name.split(".")[0] == "headpatch" for name in sys.modules)
checking.install("headpatch")

# The first draw may load a model, so no deadline; CI draws the same examples each time.
settings.register_profile("headpatch", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("headpatch")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: "test_notebooks" not in item.nodeid)
