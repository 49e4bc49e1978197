"""
Can four machines make one net, and keep their data?
====================================================

Each of four sites holds a few digits in plenty and others hardly at all. A coordinator merges their
nets: it asks for sums, layer by layer, and no image ever leaves its site. Here the sites are
processes, and what travels goes over sockets. One of them hangs up before the end.
"""

# %%
# A site
# ------
# This is the whole program of a site. It trains a net, sends its weights, gets them back aligned
# with those of the others, and then answers requests. Messages are bytes in the form of
# safetensors; nothing is pickled. (Here they travel in the clear: wrap the sockets in TLS.)

SITE = """
import socket, sys
import numpy as np
from safetensors.torch import load, save
from sklmc import NetClassifier
from sklmc.datasets import load_digits_split
from sklmc.merging import MomentsRequest, site_moments

port, site = int(sys.argv[1]), int(sys.argv[2])
digits, rng = load_digits_split(), np.random.default_rng(2)
shares = rng.dirichlet([0.5] * 4, size=10)[digits.y_train]      # of the four sites in each digit
owner = (rng.random((len(shares), 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=3)
X, y = digits.X_train[owner == site], digits.y_train[owner == site]  # they stay in here
net = NetClassifier(module__width=64, classes=list(range(10)), max_epochs=40, random_state=site)
net.fit(X, y)

line = socket.create_connection(("127.0.0.1", port)).makefile("rwb")
def send(data):
    line.write(len(data).to_bytes(8, "big") + data)
    line.flush()
def receive():
    return line.read(int.from_bytes(line.read(8), "big"))

send(f"site {site}".encode())
send(save(net.module_.state_dict()))
net.module_.load_state_dict(load(receive()))
while data := receive():
    request = MomentsRequest.from_bytes(data)
    if site == 3 and request.round == 1:
        break                                                   # this one has had enough
    send(site_moments(request, net, X, site=f"site {site}").to_bytes())
"""

# %%
# The sites start, and call
# -------------------------

import socket
import subprocess
import sys

from safetensors.torch import load, save

server = socket.create_server(("127.0.0.1", 0))
server.settimeout(120)
port = str(server.getsockname()[1])
programs = [subprocess.Popen([sys.executable, "-c", SITE, port, str(i)]) for i in range(4)]


def send(line, data):
    line.write(len(data).to_bytes(8, "big") + data)
    line.flush()


def receive(line):
    return line.read(int.from_bytes(line.read(8), "big"))


lines = {}
for _ in programs:
    line = server.accept()[0].makefile("rwb")
    lines[receive(line).decode()] = line
lines = dict(sorted(lines.items()))

# %%
# The coordinator knows weights and nothing else
# ----------------------------------------------
# It knows the architecture, loads the weights into it and aligns the nets by these alone.

from sklmc.merging import SiteCoordinator, SiteMoments
from sklmc.nets import MLP

states = [load(receive(line)) for line in lines.values()]
coordinator = SiteCoordinator((MLP(64, 10, width=64), states), sites=list(lines))
for line, net in zip(lines.values(), coordinator.models_):
    send(line, save(net.state_dict()))

# %%
# One round for each layer
# ------------------------
# A site that does not answer is left out, and named.

n_bytes = {"requests": 0, "answers": 0}
while (request := coordinator.next_request()) is not None:
    for site in coordinator.waiting_for_:
        send(lines[site], request.to_bytes())
    for site in coordinator.waiting_for_:
        if data := receive(lines[site]):
            n_bytes["requests"] += request.n_bytes
            n_bytes["answers"] += len(data)
            coordinator.add(SiteMoments.from_bytes(data))
        else:
            coordinator.leave_out(site, f"hung up in round {request.round}")
merged = coordinator.merge()
print(coordinator.left_out_, n_bytes)

# %%
for line in lines.values():
    line.close()
server.close()
for program in programs:
    program.wait()

# %%
# Is it worth it?
# ---------------
# On digits that no site has seen:

import matplotlib.pyplot as plt
import torch

from sklmc import merge_models
from sklmc.datasets import load_digits_split

digits = load_digits_split()
X_test = torch.tensor(digits.X_test, dtype=torch.float32)
nets = dict(zip(lines, coordinator.models_))
nets |= {"averaged": merge_models(list(nets.values()), repair=None), "merged": merged}
scores = {
    name: (net(X_test).argmax(dim=1).numpy() == digits.y_test).mean() for name, net in nets.items()
}
print({name: round(float(score), 3) for name, score in scores.items()})
fig, ax = plt.subplots()
ax.barh(list(scores), list(scores.values()), color=["C0"] * 4 + ["C1"] * 2)
ax.invert_yaxis()
ax.set(xlabel="test accuracy", xlim=(0, 1))
