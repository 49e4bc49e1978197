"""What a report of a fault needs to know about a machine."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import torch

# distributions that sklmc needs beside torch, which names its build too, then those of its extras
PACKAGES = (
    "skorch",
    "scikit-learn",
    "scipy",
    "numpy",
    "pandas",
    "joblib",
    "filelock",
    "safetensors",
    "tqdm",
    "matplotlib",
    "distributed",
    "transformers",
)


def show_versions() -> None:
    """Print the versions of sklmc, of Python and of what sklmc works with, and torch's devices.

    Put what it prints into the report of a fault. Nothing is imported for it: what is not
    installed is shown as None.

    See Also
    --------
    sklearn.show_versions : What scikit-learn was built with, and the thread pools in use.

    Examples
    --------
    >>> import sklmc
    >>> sklmc.show_versions()
    sklmc: ...
    python: ...
    platform: ...
    <BLANKLINE>
    torch: ...
    skorch: ...
    ...
    <BLANKLINE>
    torch threads: ...
    accelerator: ...
    """
    blocks = [
        {
            "sklmc": sys.modules["sklmc"].__version__,
            "python": sys.version,
            "platform": platform.platform(),
        },
        {"torch": torch.__version__, **{name: _version(name) for name in PACKAGES}},
        {"torch threads": torch.get_num_threads(), "accelerator": _accelerator()},
    ]
    lines = ["\n".join(f"{name}: {value}" for name, value in block.items()) for block in blocks]
    sys.stdout.write("\n\n".join(lines) + "\n")


def _version(name: str) -> str | None:
    """Return the version of an installed distribution; None where there is none."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _accelerator() -> str | None:
    """Name the accelerator that torch sees."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else None
