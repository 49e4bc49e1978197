"""Weight matching: ours, the plain coordinate descent that all peers share, and PyPI's rebasin.

All contenders get the same pairs of nets in one run, one thread. "plain" starts at the identity
and visits the groups of our symmetry in random order until a pass changes nothing, computing every
product afresh (the loop of Git Re-Basin). "floor" is what our sweeps cannot do without: the
products of each group's tensors and one assignment a group, once.

    python benchmarks/bench_matching.py [--quick] [--trained] [--peer]

With --trained, nets 784-512-512-512-10 are first trained on MNIST (SKLMC_DATA). With --peer,
rebasin runs as well, but for the widest pair: there it takes minutes a round.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import torch
from record import in_turn, publish, ratio_row
from scipy.optimize import linear_sum_assignment

from sklmc import NetClassifier, PermutationAligner
from sklmc.nets import MLP
from sklmc.symmetry import discover_symmetry


def plain_descent(a, b, symmetry, seed=0, max_iter=100):
    """Coordinate descent from the identity over plain groups, nothing kept between steps."""
    rng = np.random.RandomState(seed)
    state_a = {n: t.detach() for n, t in a.state_dict().items()}
    state_b = {n: t.detach() for n, t in b.state_dict().items()}
    perms = {group.name: np.arange(group.size) for group in symmetry.groups}
    sweeps = 0
    for _ in range(max_iter):
        progress = False
        sweeps += 1
        for index in rng.permutation(len(symmetry.groups)):
            group = symmetry.groups[index]
            gain = torch.zeros(group.size, group.size)
            for name, axis in group.places:
                if name in symmetry.buffers:
                    continue
                moved = state_b[name]
                for other, other_axis in (
                    (g, ax) for g in symmetry.groups for n, ax in g.places if n == name
                ):
                    if other.name != group.name:
                        perm = torch.from_numpy(perms[other.name])
                        moved = moved.index_select(other_axis, perm)
                left = state_a[name].movedim(axis, 0).reshape(group.size, -1)
                gain += left @ moved.movedim(axis, 0).reshape(group.size, -1).T
            gain = gain.numpy()
            new = linear_sum_assignment(gain, maximize=True)[1]
            rows = np.arange(group.size)
            if gain[rows, new].sum() > gain[rows, perms[group.name]].sum() + 1e-12:
                progress = True
            perms[group.name] = new
        if not progress:
            break
    moved = symmetry.apply_state(state_b, symmetry.permutation(perms))
    return objective(state_a, moved, symmetry), sweeps


def objective(a, b, symmetry) -> float:
    """Return the inner product over all tensors that a group permutes, each once."""
    names = {name for g in symmetry.groups for name, _ in g.places} - set(symmetry.buffers)
    return sum(float((a[n].double() * b[n].double()).sum()) for n in sorted(names))


def floor(a, b, symmetry):
    """Multiply what one sweep must multiply, and solve one assignment a group."""
    state_a, state_b = a.state_dict(), b.state_dict()
    for group in symmetry.groups:
        gain = torch.zeros(group.size, group.size)
        for name, axis in group.places:
            if name not in symmetry.buffers:
                left, right = (
                    s[name].movedim(axis, 0).reshape(group.size, -1) for s in (state_a, state_b)
                )
                gain += left @ right.T
        linear_sum_assignment(gain.numpy(), maximize=True)


def rebasin_descent(a, b, x):
    """PyPI's rebasin on the same pair; it works in place, on copies."""
    import copy

    from rebasin import PermutationCoordinateDescent

    search = PermutationCoordinateDescent(copy.deepcopy(a), copy.deepcopy(b), x)
    search.rebasin()


def pairs(quick, trained):
    """Yield (name, net A, net B, sample)."""
    for width in (128, 512) if quick else (128, 512, 1024, 2048):
        nets = []
        for seed in range(2):
            torch.manual_seed(seed)
            nets.append(MLP(n_features=784, n_outputs=10, width=width, depth=3).eval())
        yield f"random MLP 784-{width}x3-10", *nets, torch.randn(8, 784)
    if not quick:
        from sklmc.nets import VGG11, ResNet20

        for name, build in (
            ("random ResNet-20 x1", lambda: ResNet20(norm="batch")),
            ("random ResNet-20 x4", lambda: ResNet20(width_multiplier=4, norm="batch")),
            ("random VGG-11 x1", lambda: VGG11(norm="batch")),
        ):
            nets = []
            for seed in range(2):
                torch.manual_seed(seed)
                nets.append(build().eval())
            yield name, *nets, torch.randn(8, 3, 32, 32)
    if trained:
        from sklmc.datasets import load_images

        data = load_images("mnist")
        X = data.X_train.reshape(len(data.X_train), -1)
        nets = [
            NetClassifier(
                module__width=512, module__depth=3, lr=1e-3, batch_size=256, max_epochs=5,
                random_state=seed,
            ).fit(X, data.y_train)
            for seed in range(2)
        ]  # fmt: skip
        yield "trained MLP 784-512x3-10", *(net.module_ for net in nets), torch.from_numpy(X[:8])


def main():
    """Time all contenders on all pairs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help="run PyPI's rebasin as well")
    parser.add_argument("--only", nargs="+", default=[""], help="pairs whose name contains one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name, a, b, x in pairs(options.quick, options.trained):
        if not any(part in name for part in options.only):
            continue
        symmetry = discover_symmetry(a, x)
        aligner = PermutationAligner(symmetry=symmetry)
        contenders = {
            "ours": partial(aligner.fit, a, b),
            "plain": partial(plain_descent, a, b, symmetry),
            "floor": partial(floor, a, b, symmetry),
        }
        peer = options.peer and "2048" not in name
        if peer:
            contenders["rebasin"] = partial(rebasin_descent, a, b, x)
        seconds = in_turn(contenders, options.repeats)
        reached, sweeps = plain_descent(a, b, symmetry)
        row = {
            "pair": name,
            **ratio_row(seconds, "ours", "plain"),
            "objective": aligner.objective_,
            "plain objective": reached,
            "sweeps": aligner.n_iter_,
            "plain sweeps": sweeps,
            "floor s": np.median(seconds["floor"]),
        }
        if peer:
            row["rebasin s"] = np.median(seconds["rebasin"])
        rows.append(row)
        print(row, flush=True)
    publish("matching", rows, {"command": "bench_matching.py", **vars(options)})


if __name__ == "__main__":
    main()
