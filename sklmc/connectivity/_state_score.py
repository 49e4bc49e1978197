"""Loss and error of one net, given by its tensors."""

from __future__ import annotations

import numpy as np

from sklmc.connectivity._path_evaluator import values_last
from sklmc.connectivity._path_losses import Samples, block_sums, target_values
from sklmc.models import IGNORED, ModelView, State, run_module

ROWS = 1024  # samples in a block


def score_state(
    look: ModelView, state: State, samples: Samples, classify: bool
) -> tuple[float, float]:
    """Return mean loss and mean error over all samples."""
    total, n_values = np.zeros(2), 0
    for args, chosen, start, stop in samples.passes(ROWS):
        outputs = run_module(look, args, state)[chosen]
        outputs = values_last(outputs.cpu(), classify)
        target = target_values(samples.target[start:stop], classify)
        if classify:
            counts = target != IGNORED
            outputs, target = outputs[..., counts], target[counts]
        total += [float(value) for value in block_sums(outputs, target, classify)]
        n_values += target.shape[-1]
    loss, error = (total / n_values).tolist()
    return loss, error
