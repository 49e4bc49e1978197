"""
How does a merge in rounds fit into a federated framework?
==========================================================

Frameworks such as Flower call two kinds of functions: ``fit(parameters, config)`` at a client,
which returns ``(arrays, number of samples, metrics)``, and a strategy at the server, which says
what each client gets next and takes in what came back. Both are written here as plain functions
over lists of arrays, so that they go into any framework of that form; nothing but a loop is
needed to run them.
"""

# %%
# A client
# --------
# It is asked for three things: to train, and to answer a request with sums over its own samples.
# What it needs for an answer travels with the request: clients may keep nothing between two calls.

import numpy as np

from sklmc import NetClassifier
from sklmc.datasets import load_digits_split
from sklmc.merging import MomentsRequest, site_moments

digits, rng = load_digits_split(), np.random.default_rng(2)
shares = rng.dirichlet([0.5] * 4, size=10)[digits.y_train]  # of the four clients in each digit
owner = (rng.random((len(shares), 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=3)


def fit(parameters: list[np.ndarray], config: dict) -> tuple[list[np.ndarray], int, dict]:
    client = config["client"]
    X, y = digits.X_train[owner == client], digits.y_train[owner == client]
    if config["task"] == "train":
        net = new_net(client).fit(X, y)
        return to_arrays(net.module_), len(X), {"accuracy": net.score(X, y)}
    net = from_arrays(parameters)
    request = MomentsRequest.from_bytes(config["request"])
    answer = site_moments(request, net, X, y, site=f"client {client}")
    return [np.frombuffer(answer.to_bytes(), dtype=np.uint8)], len(X), {}


# %%
# Nets as lists of arrays, as these frameworks send them.

import torch

from sklmc.nets import MLP


def new_net(seed):
    settings = {"module__width": 64, "classes": list(range(10)), "max_epochs": 40}
    return NetClassifier(**settings, random_state=seed)


def to_arrays(module):
    return [tensor.numpy() for tensor in module.state_dict().values()]


def from_arrays(arrays):
    module = MLP(64, 10, width=64)
    names = module.state_dict()
    module.load_state_dict({name: torch.tensor(one) for name, one in zip(names, arrays)})
    return module


# %%
# A strategy
# ----------
# ``configure_fit`` says what each client gets. After the round of training there is one round for
# each layer.

from sklmc.merging import SiteCoordinator, SiteMoments


def configure_fit(coordinator, clients):
    if coordinator is None:
        return {client: ([], {"task": "train", "client": client}) for client in clients}
    config = {"task": "answer", "request": coordinator.next_request().to_bytes()}
    nets = dict(zip(coordinator.sites, coordinator.models_))
    return {
        client: (to_arrays(nets[f"client {client}"]), {**config, "client": client})
        for client in clients
        if f"client {client}" in coordinator.waiting_for_
    }


# %%
# ``aggregate_fit`` takes in what came back: client -> (arrays, number of samples, metrics). A
# client that failed is not among them: the round is closed without it, and it is left out.


def aggregate_fit(coordinator, results):
    if coordinator is None:
        nets = [from_arrays(arrays) for arrays, _, _ in results.values()]
        weights = [n_samples for _, n_samples, _ in results.values()]
        names = [f"client {client}" for client in results]
        return SiteCoordinator(nets, sites=names, weights=weights, target="labels")
    answered = coordinator.round_
    for arrays, _, _ in results.values():
        coordinator.add(SiteMoments.from_bytes(arrays[0].tobytes()))
    if coordinator.round_ == answered:
        coordinator.close_round()
    return coordinator


# %%
# The framework's part
# --------------------
# A loop that calls all of these; in earnest the calls go to other machines. Client 3 fails in the
# last round.

coordinator, clients, results = None, [0, 1, 2, 3], []
while coordinator is None or coordinator.next_request() is not None:
    tasks = configure_fit(coordinator, clients)
    if len(results) == 2:
        del tasks[3]
    results.append({client: fit(*task) for client, task in tasks.items()})
    coordinator = aggregate_fit(coordinator, results[-1])
merged = coordinator.merge()
print(f"{len(results)} rounds, that of training among them; left out: {coordinator.left_out_}")

# %%
# Is it worth it?
# ---------------
# The rival is the mean of the weights, which is what federated averaging takes after one round.

import matplotlib.pyplot as plt

from sklmc import average_models


def accuracy(net):
    outputs = net(torch.tensor(digits.X_test, dtype=torch.float32))
    return float((outputs.argmax(dim=1).numpy() == digits.y_test).mean())


nets = {f"client {i}": from_arrays(arrays) for i, (arrays, *_) in results[0].items()}
nets |= {"averaged": average_models(list(nets.values())), "merged": merged}
scores = {name: accuracy(net) for name, net in nets.items()}
print({name: round(score, 3) for name, score in scores.items()})
fig, ax = plt.subplots()
ax.barh(list(scores), list(scores.values()), color=["C0"] * 4 + ["C1"] * 2)
ax.invert_yaxis()
ax.set(xlabel="test accuracy", xlim=(0, 1))
