"""Two nets with four inputs that others trained, and peptides as they take them.

`im2deep` 2.0.2 predicts the cross section of a peptide in a gas (square angstroms) from the
composition of its residues, of pairs of them, of the whole, and from the residues themselves. Two
of its checkpoints share an architecture (1.0M parameters) and were trained apart: the net for one
conformer, and what the net for several was built on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from packaged_nets import read_checkpoint
from torch import nn

MODELS = ("IM2DeepUni.ckpt", "multi_output_backbone.ckpt")
FOLDER = "im2deep/models/TIMS"
MEASURED = "im2deep/reference_data/reference_ccs.csv.gz"
LENGTH = 60  # residues; what is missing is zero
ENDS = 4  # residues at either end whose composition stands apart
SLOPE, SATURATION = 0.1, 20.0
ORDER = "KRPTNAQVSGILCMHFYWED"

# atoms of each residue: C, H, N, O, S (and no P)
RESIDUES = {
    "A": (3, 5, 1, 1, 0), "C": (3, 5, 1, 1, 1), "D": (4, 5, 1, 3, 0), "E": (5, 7, 1, 3, 0),
    "F": (9, 9, 1, 1, 0), "G": (2, 3, 1, 1, 0), "H": (6, 7, 3, 1, 0), "I": (6, 11, 1, 1, 0),
    "K": (6, 12, 2, 1, 0), "L": (6, 11, 1, 1, 0), "M": (5, 9, 1, 1, 1), "N": (4, 6, 2, 2, 0),
    "P": (5, 7, 1, 1, 0), "Q": (5, 8, 2, 2, 0), "R": (6, 12, 4, 1, 0), "S": (3, 5, 1, 2, 0),
    "T": (4, 7, 1, 2, 0), "V": (5, 9, 1, 1, 0), "W": (11, 10, 2, 1, 0), "Y": (9, 9, 1, 2, 0),
}  # fmt: skip


class _Saturated(nn.LeakyReLU):
    """A leaky ReLU that ends at a value."""

    def __init__(self):
        super().__init__(SLOPE)

    def forward(self, x):
        return super().forward(x).clamp(max=SATURATION)


def _convolutions(kernel: int, *channels: int | None) -> nn.Sequential:
    """Return convolutions with those channels; None is a pool of two places."""
    layers: list[nn.Module] = []
    width = channels[0]
    for n in channels[1:]:
        if n is None:
            layers.append(nn.MaxPool1d(2))
        else:
            layers += [nn.Conv1d(width, n, kernel, padding="same"), _Saturated()]
            width = n
    return nn.Sequential(*layers, nn.Flatten())


def _dense(*widths: int) -> nn.Sequential:
    pairs = zip(widths, widths[1:])
    return nn.Sequential(*(m for a, b in pairs for m in (nn.Linear(a, b), _Saturated())))


class CrossSection(nn.Module):
    """Four branches, joined: (n_peptides, 1)."""

    def __init__(self):
        super().__init__()
        self.residues = _convolutions(4, 6, 256, 256, None, 128, 128, None, 64, 64)
        self.pairs = _convolutions(2, 6, 128, 128, None, 64, 64)
        self.whole = _dense(60, 16, 16, 16)
        self.letters = _convolutions(2, 20, 2, 2)[:-1].append(nn.MaxPool1d(10)).append(nn.Flatten())
        self.joined = _dense(1948, *[128] * 5).append(nn.Linear(128, 1))

    def forward(self, residues, pairs, whole, letters):
        found = [
            self.residues(residues.transpose(1, 2)),
            self.pairs(pairs.transpose(1, 2)),
            self.letters(letters.transpose(1, 2)),
            self.whole(whole),
        ]
        return self.joined(torch.cat(found, dim=1))


def load_members(packages: Path) -> list[CrossSection]:
    """Return the two nets; a checkpoint lists its tensors in the order of the layers."""
    nets = []
    for name in MODELS:
        net = CrossSection()
        tensors = read_checkpoint(packages / FOLDER / name)["state_dict"].values()
        net.load_state_dict(dict(zip(net.state_dict(), tensors, strict=True)))
        nets.append(net.eval())
    return nets


def read_peptides(packages: Path, n: int, seed: int) -> tuple[tuple[torch.Tensor, ...], np.ndarray]:
    """Return forward's arguments for n unmodified peptides, and their measured cross sections."""
    table = pd.read_csv(packages / MEASURED)
    table = table[table.peptidoform.str.fullmatch(rf"[{ORDER}]{{8,{LENGTH}}}/\d")]
    table = table.sample(n, random_state=seed)
    rows = [_encode(*one.split("/")) for one in table.peptidoform]
    arrays = [np.stack(part).astype(np.float32) for part in zip(*rows)]
    return tuple(map(torch.from_numpy, arrays)), table.CCS.to_numpy(np.float32)


def _encode(sequence: str, charge: str) -> tuple[np.ndarray, ...]:
    """Return one peptide's composition by residue, by pairs and as a whole, and its letters."""
    n = len(sequence)
    residues = np.zeros((LENGTH, 6))
    residues[:n, :5] = [RESIDUES[one] for one in sequence]
    letters = np.zeros((LENGTH, len(ORDER)))
    letters[np.arange(n), [ORDER.index(one) for one in sequence]] = 1
    ends = np.concatenate([residues[n - ENDS : n], residues[:ENDS]])
    shares = [sum(map(sequence.count, kind)) / n for kind in ("H", "FWY", "DE", "KR")]
    whole = [*residues.sum(axis=0), n, *shares, int(charge), *ends.ravel()]
    return residues, residues.reshape(-1, 2, 6).sum(axis=1), np.array(whole), letters
