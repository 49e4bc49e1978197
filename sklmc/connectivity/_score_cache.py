"""Curves of finished cells in a folder: read where they are there, computed and stored if not."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path

import torch

from sklmc.connectivity._path_job import Curves
from sklmc.exceptions import SklmcWarning
from sklmc.models import (
    ModelView,
    Unreadable,
    fingerprint,
    keeping,
    locked,
    read_record,
    versions,
    write_record,
)


def check_aligner_seed(aligner, caller: str) -> None:
    """Refuse an aligner that finds something else each time: nothing could be resumed."""
    if not hasattr(aligner, "get_params"):  # None, or a name, which stands for a fixed seed
        return
    for name, value in aligner.get_params(deep=True).items():
        if name.split("__")[-1] == "random_state" and not isinstance(value, Integral):
            raise ValueError(
                f"{caller}: 'aligner' must have an int as {name!r} with 'cache_dir', got "
                f"{value!r}: with other seeds each time nothing could be resumed."
            )


def score_key(looks: Sequence[ModelView], *others, caller: str) -> str | None:
    """Return what stands for models and everything else that their curves depend on.

    None, with a warning, where something cannot be told from others.
    """
    models = [
        (look.module, str(look.device), look.task, look.classes, _settings(look)) for look in looks
    ]
    try:
        return fingerprint(models, others, versions("numpy", "scipy"))
    except Unreadable as error:
        warnings.warn(
            f"{caller}: the scores are not stored in 'cache_dir', since something that they depend "
            f"on cannot be told from others: {error}. They are computed every time.",
            SklmcWarning,
            stacklevel=6,
        )
        return None


def _settings(look: ModelView):
    """Return the class and the parameters of a skorch net, which aligners see."""
    if look.net is None:
        return None
    params = look.net.get_params(deep=False)
    return type(look.net), {name: params[name] for name in params if name != "verbose"}


def keep_curves(folder: Path, key: str, compute: Callable[[], Curves], caller: str) -> Curves:
    """Return the curves of a key; whoever comes second waits and reads.

    Curves with a pair that failed are not stored: what failed once may succeed the next time.
    """
    path = folder / f"scores-{key[:24]}.safetensors"
    with keeping(folder, caller), locked(path.with_suffix(".lock")):
        record = read_record(path, {"key": key}, caller)
        if record is not None:
            return Curves(record.tensors["values"].numpy().copy(), failures={})
        curves = compute()
        if not curves.failures:
            notes = {"key": key, "caller": caller, "versions": versions("numpy", "scipy")}
            write_record(path, {"values": torch.from_numpy(curves.values)}, notes)
        return curves
