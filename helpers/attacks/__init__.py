"""Attack, defend, doubt: attacks called as in torchattacks, what adversarial training lowers, and who survives."""

from .accuracy import Robustness, WorstCase, robust_accuracy, worst_case
from .apgd import APGD, APGDT
from .base import Attack
from .gradient import EOT, FFGSM, FGSM, PGD, PGDL2
from .losses import cross_entropy, dlr, dlr_targeted, least_likely, margin, random_target
from .square import Square

__all__ = [
    "APGD",
    "APGDT",
    "EOT",
    "FFGSM",
    "FGSM",
    "PGD",
    "PGDL2",
    "Attack",
    "Robustness",
    "Square",
    "WorstCase",
    "cross_entropy",
    "dlr",
    "dlr_targeted",
    "least_likely",
    "margin",
    "random_target",
    "robust_accuracy",
    "worst_case",
]
