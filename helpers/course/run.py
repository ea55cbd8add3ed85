"""One run of a notebook: its profile, seed and device, what it found, and where that is written."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from accelerate import PartialState
from accelerate.utils import set_seed
from IPython.display import Markdown
from torch import nn

from ..contract import project_root
from ..models import save_model
from ..training.checkpoints import checkpoint_root, in_use, replacing
from .code_hash import executed_hash, hash_until_saved
from .device import device_name, precision
from .pictures import compact
from .provenance import helpers_hash, seconds_kept, training_records

T = TypeVar("T")
PROFILES = ("toy", "lite", "full")
PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "scikit-learn")


def notebook_path(notebook: str) -> Path:
    """The file of a notebook that is named without `.ipynb`."""
    return project_root() / "notebooks" / f"{notebook}.ipynb"


def output_root() -> Path:
    """Where results and figures go: `$OUTPUT_DIR`, else `reports/`."""
    return Path(os.environ.get("OUTPUT_DIR") or project_root() / "reports")


def choose_profile(profile: str | None = None) -> str:
    """The profile asked for, else `$PROFILE`, else `"toy"`, also with a GPU. ValueError: another word."""
    chosen = profile or os.environ.get("PROFILE") or "toy"
    if chosen not in PROFILES:
        raise ValueError(f"unknown profile {chosen!r}: set PROFILE to one of {', '.join(PROFILES)}")
    return chosen


def read_results(name: str, profile: str, root: Path | None = None) -> dict[str, Any] | None:
    """The results file of a notebook and profile; for `toy` the one the tests compare with. None: not run."""
    root = root or project_root()
    folder = root / "tests" / "golden" if profile == "toy" else root / "reports" / "results"
    path = folder / f"{name}.{profile}.json"
    return json.loads(path.read_text()) if path.is_file() else None


class Run:
    """The frame of one notebook run.

    Args:
        notebook: file name without `.ipynb`.
        profile: `"toy"`, `"lite"`, `"full"`, or None for `choose_profile`.
        seed: of everything random; set for Python, NumPy and torch here.
    """

    def __init__(self, notebook: str, profile: str | None = None, seed: int = 0) -> None:
        self.notebook, self.profile, self.seed = notebook, choose_profile(profile), seed
        self.device = PartialState().device
        native = precision(self.device)
        self.precision = self.pick(toy="no", lite=native, full=native)  # toy: the same everywhere
        self.results: dict[str, Any] = {
            "data": [],
            "values": {},
            "tables": {},
            "figures": {},
            "findings": {},
            "order": [],
        }
        self._started = time.perf_counter()
        self._asked: dict[str, Path] = {}  # the folders of trainings
        self._kept: dict[Path, float] = {}  # seconds of this notebook's trainings before this start
        set_seed(seed)

    def __repr__(self) -> str:
        where = f"on {device_name(self.device)}, mixed precision: {self.precision}"
        times = "; ".join(f"{profile} {_time_taken(self.notebook, profile)}" for profile in PROFILES[1:])
        return f"{self.notebook}, profile {self.profile}, seed {self.seed}, {where}\nTime that PROFILE takes: {times}"

    def pick(self, *, toy: T, lite: T, full: T) -> T:
        """The value for this run's profile."""
        return {"toy": toy, "lite": lite, "full": full}[self.profile]

    def folder(self, name: str, notebook: str | None = None) -> Path:
        """Where the training `name` keeps its checkpoints; pass `notebook` to find those of another one.

        Raises:
            ValueError: the name cannot be a folder's.
        """
        if not name or set(name) & set("/\\") or name.startswith("."):
            raise ValueError(
                f"the training {name!r} is kept in a folder of this name: leave out slashes and a leading dot"
            )
        path = checkpoint_root() / f"{notebook or self.notebook}.{self.profile}" / name
        own = notebook in (None, self.notebook)
        asked = name if own else f"{notebook}/{name}"
        if asked not in self._asked:
            self._asked[asked] = path
            if own:  # what an earlier start of this notebook has done counts towards its time
                self._kept |= seconds_kept(path)
        return path

    def save_model(
        self, name: str, model: nn.Module, build: str, arguments: dict[str, Any], settings: dict[str, Any]
    ) -> None:
        """Keep a trained model for other notebooks, which get it by `models.trained`; see `models.save_model`.

        Its card says which notebook trained it, in which profile, and the hash of the code cells that led to it.
        """
        code = executed_hash() or hash_until_saved(notebook_path(self.notebook), name)
        about = {"notebook": self.notebook, "profile": self.profile, "code": code}
        if PartialState().is_main_process:
            save_model(model, self.folder(name), build, arguments, settings, **about)

    def used(self, *sets: Any) -> None:
        """Note the sets this run used (anything with `describe()`)."""
        self.results["data"] += [data.describe() for data in sets]

    def value(self, name: str, value: float) -> float:
        """Note one number and hand it back."""
        self.results["values"][name] = _number(value)
        return value

    def table(self, name: str, frame: pd.DataFrame, caption: str) -> pd.DataFrame:
        """Note a table (index included) and hand it back."""
        flat = frame.reset_index() if any(frame.index.names) else frame
        rows = [[_number(value) for value in row] for row in flat.itertuples(index=False)]
        self.results["tables"][name] = {
            "caption": caption,
            "columns": [str(column) for column in flat.columns],
            "rows": rows,
        }
        self.results["order"].append(["table", name])
        return frame

    def finding(self, text: str) -> Markdown:
        """Note a sentence that reads a result, and hand it back to be shown."""
        name = f"{len(self.results['findings']) + 1}"
        self.results["findings"][name] = text
        self.results["order"].append(["finding", name])
        return Markdown(text)

    def figure(self, name: str, figure: Any, caption: str, dpi: int = 110) -> Any:
        """Save a matplotlib figure as PNG, note it, and hand it back."""
        path = output_root() / "figures" / f"{self.notebook}.{self.profile}" / f"{name}.png"
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=dpi, bbox_inches="tight", format="png")
            temporary.write_bytes(compact(temporary.read_bytes()))
        self.results["figures"][name] = {"caption": caption, "file": f"figures/{path.parent.name}/{path.name}"}
        self.results["order"].append(["figure", name])
        return figure

    def finish(self, headline: str) -> str:
        """Write `results/<notebook>.<profile>.json` and return that name; call it in the notebook's last code cell.

        Args:
            headline: the result in one line, for the README.
        """
        path = output_root() / "results" / f"{self.notebook}.{self.profile}.json"
        with replacing(path) as temporary:
            temporary.write_text(
                json.dumps(
                    self._provenance() | {"headline": headline} | self.results,
                    indent=1,
                    ensure_ascii=False,
                    allow_nan=False,
                )
                + "\n"
            )
        return f"results/{path.name}"

    def _provenance(self) -> dict[str, Any]:
        resumed = sum(self._kept.get(in_use(path), 0.0) for path in self._asked.values())
        return {
            "notebook": self.notebook,
            "profile": self.profile,
            "seed": self.seed,
            "code_sha256": executed_hash(),  # of what ran, which need not be saved yet
            "helpers_sha256": helpers_hash(),
            "date": datetime.now(UTC).date().isoformat(),
            "seconds": round(time.perf_counter() - self._started + resumed, 1),
            "seconds_resumed": round(resumed, 1),
            "device": device_name(self.device),
            "processes": PartialState().num_processes,
            "precision": self.precision,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in PACKAGES},
            "trainings": training_records(self._asked),
        }


def _time_taken(notebook: str, profile: str) -> str:
    """`103 minutes (AMD EPYC, 2 threads)`, from the results file."""
    result = read_results(notebook, profile)
    return f"{result['seconds'] / 60:.0f} minutes ({result['device']})" if result else "not measured"


def _number(value: Any) -> Any:
    """JSON's own types; a float to six digits, and None for NaN or a missing number, which JSON does not have."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_number(item) for item in value]
    if value is pd.NA:
        return None
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
