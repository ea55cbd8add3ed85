"""Scaffolding: what notebooks 02 to 04 still import; each file goes when its notebook is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from ..course.run import Run


def once_a_run[T](make: Callable[[Run], T]) -> Callable[[Run], T]:
    """What `make` gives for a run's profile and seed, made once and kept on the run itself."""

    @wraps(make)
    def kept(run: Run) -> T:
        made, key = vars(run).setdefault("made", {}), (make, run.profile, run.seed)
        if key not in made:
            made[key] = make(run)
        return made[key]

    return kept
