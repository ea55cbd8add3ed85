"""What the notebooks' test run adds to nbval: `pytest -p nbval_plugin`, with this folder on PYTHONPATH."""

from pathlib import Path

import pytest
from shared_cores import share_cores
from xdist.scheduler import LoadScopeScheduling

share_cores()

TOGETHER = ("01_", "02_", "03_", "04_")  # these load each other's models, so that they run one after the other


class Notebooks(LoadScopeScheduling):
    """pytest -n: a notebook's cells stay in one process, and so do the notebooks that need each other."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.partition("::")[0]).name
        return "together" if name.startswith(TOGETHER) else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Notebooks:
    """Asked for by xdist."""
    return Notebooks(config, log)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """nbval: a new warning of some library on stderr is no reason to fail a notebook."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
