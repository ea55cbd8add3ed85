"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from helpers.training.metrics import classification_metrics, confusion_matrix, interval, per_class_metrics

# Six images: class 0 twice right and once taken for 1, class 1 right, class 2 once taken for 0 and once right.
LABELS = torch.tensor([0, 0, 0, 1, 2, 2])
ANSWERS = torch.tensor([0, 0, 1, 1, 0, 2])
LOGITS = torch.eye(3)[ANSWERS] + 0.01 * torch.arange(3)


def test_by_hand():
    found = classification_metrics(LOGITS, LABELS)
    precision, recall = np.array([2 / 3, 1 / 2, 1]), np.array([2 / 3, 1, 1 / 2])
    f1, share = 2 * precision * recall / (precision + recall), np.array([3, 1, 2]) / 6
    assert found == pytest.approx(
        {
            "top1": 4 / 6,
            "precision_macro": precision.mean(),
            "recall_macro": recall.mean(),
            "f1_macro": f1.mean(),
            "precision_weighted": precision @ share,
            "recall_weighted": recall @ share,
            "f1_weighted": f1 @ share,
        }
    )
    assert confusion_matrix(LOGITS, LABELS).tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    table = per_class_metrics(LOGITS, LABELS, ["a", "b", "c"])
    assert table.precision.tolist() == pytest.approx(precision)
    assert table.recall.tolist() == pytest.approx(recall)
    assert table.f1.tolist() == pytest.approx(f1)
    assert table.examples.tolist() == [3, 1, 2]


def test_top5():
    logits = torch.arange(10.0).repeat(10, 1)  # the five highest are the classes 5 to 9
    assert classification_metrics(logits, torch.arange(10)) == pytest.approx(
        classification_metrics(logits, torch.arange(10)) | {"top1": 0.1, "top5": 0.5}
    )


def test_class_that_is_never_predicted_has_precision_zero():
    found = classification_metrics(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert found["precision_macro"] == 0.25


def test_interval_agrees_with_the_binomial_one():
    correct = torch.zeros(2_000, dtype=torch.bool)
    correct[:600] = True
    low, high = interval(correct)
    half = 1.96 * (0.3 * 0.7 / 2_000) ** 0.5
    assert (low, high) == (pytest.approx(0.3 - half, abs=0.002), pytest.approx(0.3 + half, abs=0.002))
    assert interval(correct) == (low, high)
    assert interval(correct, confidence=0.5)[0] > low


def test_paired_interval_is_tighter_than_two_single_ones():
    first = torch.arange(2_000) % 2 == 0
    second = first.clone()
    second[:100] = False  # differs on 50 images only
    low, high = interval(first.float() - second.float())
    assert 0 < low < 0.025 < high < 0.04


def test_bad_input():
    with pytest.raises(ValueError, match="labels must lie in 0 .. 2"):
        classification_metrics(LOGITS, LABELS + 1)
    with pytest.raises(ValueError, match="NaN"):
        confusion_matrix(LOGITS * float("nan"), LABELS)
    with pytest.raises(ValueError, match=r"\(6, 3\) and \(5,\)"):
        per_class_metrics(LOGITS, LABELS[:5], ["a", "b", "c"])
