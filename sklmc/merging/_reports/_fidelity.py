"""How near single nets come to the ensemble that they are to stand for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch

from sklmc.models import as_logits


def fidelity_frame(
    outputs: Mapping[str, torch.Tensor], ensemble: torch.Tensor, classifier: bool
) -> pd.DataFrame:
    """Return one row per net: how its outputs go with the ensemble's, on the same samples.

    Of classifiers (`ensemble` holds log probabilities (..., n_classes), `outputs` logits), the
    share of equal labels and the mean Kullback-Leibler divergence from the ensemble in nats; of
    anything else, R2 for each output and their median.
    """
    measure = _of_classifier if classifier else _of_values
    return pd.DataFrame([{"model": n, **measure(one, ensemble)} for n, one in outputs.items()])


def _of_classifier(logits: torch.Tensor, ensemble: torch.Tensor) -> dict[str, float]:
    """Return agreement and divergence."""
    logs = torch.log_softmax(as_logits(logits).double(), dim=-1)
    same = logs.argmax(dim=-1) == ensemble.argmax(dim=-1)
    terms = ensemble.exp() * (ensemble - logs)
    divergence = terms.nan_to_num(0.0, posinf=torch.inf).sum(dim=-1)  # 0 log 0 is 0
    return {"agreement": float(same.double().mean()), "kl": float(divergence.mean())}


def _of_values(outputs: torch.Tensor, ensemble: torch.Tensor) -> dict[str, float]:
    """Return R2 to the ensemble, in the median over the outputs and for each of them."""
    given = outputs.double().reshape(len(outputs), -1).numpy()
    wanted = ensemble.double().reshape(len(ensemble), -1).numpy()
    spread = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = 1.0 - np.square(given - wanted).sum(axis=0) / spread
    single = {f"r2_{k}": float(one) for k, one in enumerate(r2)} if len(r2) > 1 else {}
    return {"r2": float(np.median(r2)), **single}
