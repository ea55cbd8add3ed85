"""The tables of the reports, over scikit-learn and SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import bootstrap
from sklearn.metrics import confusion_matrix as sklearn_confusion
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score
from torch import Tensor

from ..contract import check_labels


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, and precision, recall and F1 averaged over classes, all as fractions.

    `macro` gives each class the same weight; `weighted` weighs classes by their examples, which makes `recall_weighted`
    equal to accuracy by definition. A class that is never predicted has precision 0.

    Args:
        logits: float `(N, classes)`, finite; labels: int64 `(N,)`.

    Returns:
        `top1`, `top5` (with more than five classes), `precision_macro`, `recall_macro`, `f1_macro`, and so on
        with `weighted`.

    Raises:
        ValueError: a label outside the classes, NaN in the logits, or shapes that do not fit.
    """
    _check(logits, labels)
    predicted, classes = logits.argmax(1).numpy(), np.arange(logits.shape[1])
    out = {"top1": float((predicted == labels.numpy()).mean())}
    if len(classes) > 5:
        out["top5"] = float(top_k_accuracy_score(labels.numpy(), logits.numpy(), k=5, labels=classes))
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(
            labels.numpy(), predicted, labels=classes, average=average, zero_division=0.0
        )
        out |= dict(
            zip((f"precision_{average}", f"recall_{average}", f"f1_{average}"), map(float, scores[:3]), strict=True)
        )
    return out


def per_class_metrics(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> pd.DataFrame:
    """Precision, recall and F1 of each class and its number of examples, one row a class."""
    _check(logits, labels)
    scores = precision_recall_fscore_support(
        labels.numpy(), logits.argmax(1).numpy(), labels=np.arange(len(classes)), zero_division=0.0
    )
    columns = dict(zip(("precision", "recall", "f1", "examples"), scores, strict=True))
    return pd.DataFrame(columns, index=pd.Index(classes, name="class"))


def confusion_matrix(logits: Tensor, labels: Tensor) -> np.ndarray:
    """Counts `(classes, classes)`: row = true class, column = predicted class."""
    _check(logits, labels)
    return sklearn_confusion(labels.numpy(), logits.argmax(1).numpy(), labels=np.arange(logits.shape[1]))


def interval(correct: Tensor, confidence: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval (percentile) of an accuracy, from which answers were right.

    Args:
        correct: bool `(N,)`; or float `(N,)`, for two models on the same images `a.float() - b.float()` (paired).
    """
    sample = correct.float().numpy()
    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=2_000,
        batch=100,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 2 or len(logits) != len(labels):
        raise ValueError(
            f"need logits (N, classes) and labels (N,), got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if not torch.isfinite(logits).all():
        raise ValueError("the logits hold NaN or infinity: the model is broken, so there is nothing to score")
    check_labels(labels, logits.shape[1])
