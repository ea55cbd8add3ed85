"""Train, evaluate, keep what came out: one loop for clean and adversarial training."""

from .evaluation import Evaluation, evaluate
from .loop import fit

__all__ = ["Evaluation", "evaluate", "fit"]
