"""`make test-portable`: the tests that train, on other arithmetic and from other seeds.

The environment makes one processor calculate as others do: with other vector instructions sums are rounded in another
order, and a training drifts apart. What a test says must hold all the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARITHMETIC = {
    "ATEN_CPU_CAPABILITY": ("default", "avx2"),
    "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX2"),
    "OMP_NUM_THREADS": ("1", "2"),
}
SEEDS = range(10)
FILES = sorted(str(path) for path in Path(__file__).parent.rglob("test_*.py") if "mark.trains" in path.read_text())


def variants() -> dict[str, dict[str, str]]:
    """Each variant's name and environment: all of the arithmetic with the first seed, all seeds as this machine is."""
    grid = [dict(zip(ARITHMETIC, values, strict=True)) for values in product(*ARITHMETIC.values())]
    named = {"aten {}, onednn {}, threads {}".format(*row.values()): row for row in grid}
    return named | {f"this machine, seed {seed}": {"TEST_SEED": str(seed)} for seed in SEEDS}


def run(environment: dict[str, str], arguments: list[str]) -> tuple[int, list[str]]:
    """Tests that passed, and the names of those that did not."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "trains", f"--junitxml={report}", *FILES, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
        if not report.exists():
            return 0, [f"no report: {(done.stdout + done.stderr).strip().splitlines()[-1]}"]
        cases = list(ET.parse(report).iter("testcase"))
    failed = [case.get("name") for case in cases if {"failure", "error"} & {part.tag for part in case}]
    skipped = [case for case in cases if "skipped" in {part.tag for part in case}]
    passed = len(cases) - len(failed) - len(skipped)
    return passed, failed or ([] if passed else ["no test ran"])


def main(arguments: list[str]) -> int:
    """One line a variant; returns the number of variants in which a test failed."""
    width, bad = max(map(len, variants())), 0
    sys.stdout.write(
        f"| {'variant':{width}} | passed | failed | which |\n|{'-' * (width + 2)}|-------:|-------:|---|\n"
    )
    for name, environment in variants().items():
        passed, failed = run(environment, arguments)
        bad += bool(failed)
        sys.stdout.write(f"| {name:{width}} | {passed:6} | {len(failed):6} | {', '.join(failed)} |\n")
        sys.stdout.flush()
    return bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
