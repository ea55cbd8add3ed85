"""An epoch of LoRA + TeCoA by where its attacked images come from, in multiples of one on clean images.

    python bench/clip.py [--profile toy] [--steps 3] [--turns 5]

The goal for images attacked once and read back: at most 1.15. Notebook 05 has the same table.
"""

from __future__ import annotations

import argparse

from helpers.course.run import Run
from helpers.experiments.nb05 import NOTEBOOK
from helpers.experiments.nb05_methods import epoch_costs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="toy")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    run = Run(NOTEBOOK, given.profile)
    print(run)
    print(epoch_costs(run, given.steps, given.turns).round(3).to_string())


if __name__ == "__main__":
    main()
