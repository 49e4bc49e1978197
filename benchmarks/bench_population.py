"""Populations: DeepEnsemble against skorch, MLPClassifier and a bare torch loop, net by net.

All train the same architecture with Adam on the same data in one run, one thread, in turn. "ours"
trains all nets in one call; "plain" is vectorize=False. What goes net by net trains a few and
counts for all (times n_nets / few): nets do not share anything there. "floor" is the matrix
products of forward and backward alone, for all members. Seconds are of the processor: all
contenders use one thread, and what else runs on the machine counts less.

    python benchmarks/bench_population.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import numpy as np
import skorch
import torch
from record import in_turn, publish
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from sklmc import DeepEnsemble, NetClassifier
from sklmc.nets import MLP

BATCH = 128
LR = 0.01


def with_skorch(X, y, n_nets, width, n_epochs):
    for seed in range(n_nets):
        torch.manual_seed(seed)
        skorch.NeuralNetClassifier(
            MLP,
            module__n_features=X.shape[1],
            module__n_outputs=int(y.max()) + 1,
            module__width=width,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=LR,
            max_epochs=n_epochs,
            batch_size=BATCH,
            iterator_train__shuffle=True,
            train_split=None,
            verbose=0,
        ).fit(X, y)


def with_scikit_learn(X, y, n_nets, width, n_epochs):
    for seed in range(n_nets):
        MLPClassifier(
            (width,),
            learning_rate_init=LR,
            alpha=0.0,
            batch_size=BATCH,
            max_iter=n_epochs,
            n_iter_no_change=n_epochs + 1,
            random_state=seed,
        ).fit(X, y)


def with_bare_torch(X, y, n_nets, width, n_epochs):
    x, target = torch.from_numpy(X), torch.from_numpy(y)
    for seed in range(n_nets):
        torch.manual_seed(seed)
        module = MLP(X.shape[1], int(y.max()) + 1, width)
        optimizer = torch.optim.Adam(module.parameters(), lr=LR)
        for _ in range(n_epochs):
            order = torch.randperm(len(x))
            for rows in order.split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[rows]), target[rows]).backward()
                optimizer.step()


def with_ours(X, y, n_nets, width, n_epochs, vectorize="auto"):
    net = NetClassifier(module__width=width, lr=LR, max_epochs=n_epochs, batch_size=BATCH)
    return DeepEnsemble(net, n_nets, vectorize=vectorize, random_state=0).fit(X, y)


@torch.no_grad()
def products_alone(X, y, n_nets, width, n_epochs):
    n_outputs = int(y.max()) + 1
    x = torch.from_numpy(X[:BATCH]).expand(n_nets, -1, -1).contiguous()
    first = torch.randn(n_nets, width, X.shape[1])
    second = torch.randn(n_nets, n_outputs, width)
    hidden, grad = torch.randn(n_nets, BATCH, width), torch.randn(n_nets, n_outputs, BATCH)
    for _ in range(n_epochs * -(-len(X) // BATCH)):
        torch.bmm(x, first.transpose(1, 2), out=hidden)
        torch.bmm(second, hidden.transpose(1, 2))
        torch.bmm(grad, hidden)
        torch.bmm(grad.transpose(1, 2), second)
        torch.bmm(hidden.transpose(1, 2), x)


def compare(name, X, y, width, n_nets, few, n_epochs, repeats):
    """Return the row of one architecture; every contender counts for n_nets nets."""
    contenders = {
        "ours": (with_ours, n_nets),
        "plain": (lambda *args: with_ours(*args, vectorize=False), few),
        "bare torch": (with_bare_torch, few),
        "skorch": (with_skorch, few),
        "MLPClassifier": (with_scikit_learn, few),
        "floor": (products_alone, n_nets),
    }
    args = {key: (run, (X, y, count, width, n_epochs)) for key, (run, count) in contenders.items()}
    calls = {key: lambda r=run, a=a: r(*a) for key, (run, a) in args.items()}
    seconds = in_turn(calls, repeats, clock=time.process_time)
    for key, (_, count) in contenders.items():
        seconds[key] = [value * n_nets / count for value in seconds[key]]
    row = {"net": name, "n_nets": n_nets, "n_epochs": n_epochs}
    row["vectorized"] = with_ours(X[:256], y[:256], n_nets, width, 1).vectorized_
    row.update({f"{key} s": statistics.median(values) for key, values in seconds.items()})
    for key in ("skorch", "MLPClassifier", "bare torch", "plain"):
        ratios = [other / ours for other, ours in zip(seconds[key], seconds["ours"])]
        row[f"{key} / ours"] = statistics.median(ratios)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round, fewer epochs")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    X, y = make_moons(1000, noise=0.1, random_state=0)
    X = X.astype("float32")
    n_epochs, repeats = (10, 1) if quick else (100, 3)
    rows = [
        compare(f"2-{width}-2", X, y, width, 50, 2, n_epochs, repeats) for width in (32, 128, 512)
    ]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(6_000 if quick else 60_000, 784)).astype("float32")
    labels = rng.integers(10, size=len(images))
    rows.append(compare("784-128-10", images, labels, 128, 8, 1, 1, repeats))
    publish(
        "population",
        rows,
        {
            "batch_size": BATCH,
            "lr": LR,
            "optimizer": "Adam",
            "repeats": repeats,
            "clock": "processor seconds of one thread",
            "quick": quick,
            "data": "1000 moons; 60000 normal samples of 784 features (6000 if quick)",
            "seeds": "DeepEnsemble random_state 0; 0, 1, ... for what goes net by net",
            "net by net": "2 nets (784-128-10: 1), times n_nets / 2 (n_nets)",
        },
    )


if __name__ == "__main__":
    main()
