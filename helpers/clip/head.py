"""First weights for a head that is learned in the place of the texts."""

from __future__ import annotations

import torch
from sklearn.linear_model import LogisticRegression

from ..data import Batches
from .zero_shot import LearnedHead


@torch.no_grad()
def fit_head(model: LearnedHead, batches: Batches) -> None:
    """The head as scikit-learn's logistic regression on the vectors of these images, in place.

    The first stage of the TeCoA paper's method (2), section A.3.1 of arXiv 2212.07016: clean images, frozen tower.
    """
    model.eval()
    found = torch.cat([model.features(images) for images, _ in batches]).cpu().numpy()
    regression = LogisticRegression(max_iter=1_000).fit(found, batches.data.labels.cpu().numpy())
    model.head.weight.copy_(torch.from_numpy(regression.coef_))
    model.head.bias.copy_(torch.from_numpy(regression.intercept_))
