"""pytest -n: the processes share the cores instead of each taking all of them."""

import os


def share_cores() -> int | None:
    """How many cores are this process's, which what it starts takes over too; None without `-n`."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0"))
    if not workers:
        return None
    return int(os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers))))
