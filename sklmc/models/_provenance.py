"""Where a merged model came from: a small record that it carries."""

from __future__ import annotations

from collections.abc import Iterable

from sklearn.exceptions import NotFittedError

from sklmc.models._storage import state_fingerprint
from sklmc.models._view import ModelView, view

PROVENANCE = "provenance_"


def with_provenance(model, parents: Iterable[ModelView], made_by: str, **how):
    """Return a merged model with ``provenance_``: who made it, how, digests of parents and itself.

    The record stands on the net (or on a plain module). Its own digest says whether it still
    speaks of these weights: a copy that was trained further or merged again carries it along.
    """
    look = view(model, caller=made_by)
    record = {
        "made_by": made_by,
        "parents": [state_fingerprint(parent.state) for parent in parents],
        **how,
        "weights_digest": state_fingerprint(look.state),
    }
    setattr(look.carrier, PROVENANCE, record)
    return model


def provenance_of(model) -> dict | None:
    """Return where a model came from, None where that is not known or no longer true."""
    try:
        look = view(model, caller="save_model")
    except (TypeError, NotFittedError):
        return None
    record = vars(look.carrier).get(PROVENANCE)
    if not isinstance(record, dict):
        return None
    return record if record.get("weights_digest") == state_fingerprint(look.state) else None


def describe(aligner) -> str | None:
    """Return an aligner as a record holds it."""
    return aligner if aligner is None else " ".join(str(aligner).split())
