"""Symmetry discovery: function kept, tensors moved, time; beside PyPI's rebasin on ten nets.

For each net every hidden unit is moved by a random permutation of what was found; "change" is the
largest change of an output, relative to the largest output, of the net's own float32 weights with
running statistics that are not trivial. rebasin moves a net onto another random one: its change
is measured in the same way.

    python benchmarks/bench_symmetry.py [--quick] [--peer]

With --peer the package rebasin must be installed. Without --quick a GPT-2 of 124M parameters is
traced as well, where transformers is installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import statistics
import sys
import time
from pathlib import Path

import torch
from record import in_turn, publish

from sklmc.nets import VGG11, ResNet20
from sklmc.symmetry import discover_symmetry

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.symmetry.zoo import ZOO

NETS = {
    "MLP": "mlp",
    "conv - batch norm": "conv_batch_norm",
    "depthwise convolution": "depthwise",
    "two branches, concatenated": "two_branches",
    "residual MLP": "residual_mlp",
    "conv - flatten - linear": "conv_flatten",
    "one Linear used twice": "linear_used_twice",
    "TransformerEncoderLayer": "encoder_layer",
    "Linear - LSTM - Linear": "lstm",
    "GroupNorm(2, 8)": "group_norm",
}


def outputs(net, X):
    """The net's outputs in eval mode."""
    with torch.no_grad():
        return net.eval()(X)


def change(before, after) -> float:
    """Largest change relative to the largest output."""
    return float((before - after).abs().max() / before.abs().max())


def n_moved(old, new) -> int:
    """Number of tensors whose entries changed their place."""
    return sum(not torch.equal(tensor, new[name]) for name, tensor in old.items())


def ours(net, X) -> dict:
    """Discover, permute at random, measure."""
    start = time.perf_counter()
    symmetry = discover_symmetry(net, X)
    seconds = time.perf_counter() - start
    moved = symmetry.apply(net, symmetry.random_permutation(1))
    return {
        "groups": len(symmetry.groups),
        "sklmc change": change(outputs(net, X), outputs(moved, X)),
        "sklmc moved": n_moved(net.state_dict(), moved.state_dict()),
        "sklmc s": seconds,
    }


def peer(build, net, X) -> dict:
    """Let rebasin move a copy of the net onto another one; a crash is a result too."""
    from rebasin import PermutationCoordinateDescent

    torch.manual_seed(1)
    other, moved = build()[0].eval(), copy.deepcopy(net).eval()
    start = time.perf_counter()
    try:
        search = PermutationCoordinateDescent(other, moved, X)
        search.rebasin()
    except Exception as error:  # whatever it raises belongs into the table
        return {"rebasin change": float("nan"), "rebasin moved": type(error).__name__}
    return {
        "rebasin change": change(outputs(net, X), outputs(moved, X)),
        "rebasin moved": n_moved(net.state_dict(), moved.state_dict()),
        "rebasin s": time.perf_counter() - start,
    }


def ten_nets(with_peer: bool) -> list[dict]:
    """One row per net."""
    rows = []
    for label, name in NETS.items():
        net, (X,) = ZOO[name].make()
        net.eval()
        row = {"net": label, "tensors": len(net.state_dict()), **ours(net, X)}
        if with_peer:
            row.update(peer(ZOO[name].build, net, X))
        rows.append(row)
    return rows


def times(quick: bool) -> list[dict]:
    """Discovery with and without proof, and what applying costs beside a copy of the weights."""
    rows = []
    X = torch.randn(8, 3, 32, 32)
    for label, net in {"ResNet20 x1": ResNet20(), "VGG11 x1": VGG11()}.items():
        discover_symmetry(net, X, verify=False)
        row = {"net": label, "parameters": sum(p.numel() for p in net.parameters())}
        seconds = in_turn(
            {
                "labels s": lambda net=net: discover_symmetry(net, X, verify=False),
                "with proof s": lambda net=net: discover_symmetry(net, X),
            },
            repeats=1 if quick else 3,
            warmup=0,
        )
        row.update({name: statistics.median(found) for name, found in seconds.items()})
        rows.append({**row, **applying(net, X)})
    if not quick and importlib.util.find_spec("transformers"):
        rows.append(gpt2())
    return rows


def applying(net, X) -> dict:
    """Time of moving every unit, beside a plain copy of all tensors."""
    symmetry = discover_symmetry(net, X, verify=False)
    permutation = symmetry.random_permutation(0)
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    seconds = in_turn(
        {
            "apply": lambda: symmetry.apply_state(state, permutation),
            "copy": lambda: {name: tensor.clone() for name, tensor in state.items()},
        },
        repeats=15,
        warmup=2,
    )
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {"apply s": medians["apply"], "apply / copy": medians["apply"] / medians["copy"]}


def gpt2() -> dict:
    """GPT-2 with 124M parameters, labels only."""
    from transformers import GPT2Config, GPT2LMHeadModel

    class Logits(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, tokens):
            return self.net(tokens, use_cache=False).logits

    net, tokens = Logits(GPT2LMHeadModel(GPT2Config())), torch.zeros(2, 16, dtype=torch.long)
    start = time.perf_counter()
    symmetry = discover_symmetry(net, tokens, verify=False)
    seconds = time.perf_counter() - start
    return {
        "net": f"GPT-2, {len(symmetry.groups)} groups",
        "parameters": sum(p.numel() for p in net.parameters()),
        "labels s": seconds,
        **applying(net, tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, no GPT-2")
    parser.add_argument("--peer", action="store_true", help="run PyPI's rebasin as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, (X,) = ZOO["mlp"].make()
    ours(net, X)  # the first export of a process loads half of torch
    publish("symmetry_ten_nets", ten_nets(options.peer), vars(options))
    publish("symmetry_times", times(options.quick), vars(options))


if __name__ == "__main__":
    main()
