"""Five long jobs of real processes, each piece of which says in a log that it was begun."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import resource
import signal
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.datasets import make_moons
from skorch.callbacks import Callback
from torch import nn

from sklmc import DeepEnsemble, LMCScorer, ModelGrid, NetClassifier, WidthSearchCV
from tests.disks import limit_files

LOG = "SKLMC_TEST_LOG"  # in the environment, so that it is no part of what is cached
SLEEP = "SKLMC_TEST_SLEEP"  # seconds that each piece takes, so that there is time to cut it off
FULL = "SKLMC_TEST_FULL"  # the piece during which the disk runs full
X, y = make_moons(64, noise=0.1, random_state=0)


def begin():
    """Write into the log that this process begins a piece of work."""
    if LOG not in os.environ or resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 0:
        return
    with open(os.environ[LOG], "a+") as file:
        file.write(f"{os.getpid()}\n")
        file.seek(0)
        n_begun = len(file.readlines())
    if n_begun == int(os.environ.get(FULL, 0)):
        limit_files(0)
    time.sleep(float(os.environ[SLEEP]))


class Logged(Callback):
    """Says that a net is trained."""

    def on_train_begin(self, net, **kwargs):
        begin()


class LoggedAligner(BaseEstimator):
    """Leaves nets as they are, and says that a pair is scored."""

    def fit(self, model_a, model_b, X, y):
        begin()
        return self

    def transform(self, model):
        return model


NET = NetClassifier(module__width=4, max_epochs=2, callbacks=[("logged", Logged())])


def population(n=6, **options):
    return DeepEnsemble(NET, n, vectorize=False, random_state=0, **options)


def weights(nets):
    return [t.numpy() for net in nets for t in net.module_.state_dict().values()]


def ensemble(folder, n_jobs):
    return weights(population(cache_dir=folder, n_jobs=n_jobs).fit(X, y).estimators_)


def grid(folder, n_jobs):
    fitted = ModelGrid(
        NET,
        {"module__width": [2, 4, 8]},
        n_estimators=2,
        vectorize=False,
        cache_dir=folder,
        n_jobs=n_jobs,
        random_state=0,
    ).fit(X, y)
    return [part for cell in fitted for part in weights(cell.estimators)]


class Gated(nn.Module):
    """A net that is no chain of layers: its pairs are scored one by one."""

    def __init__(self, n_features, n_outputs, width=4):
        super().__init__()
        self.hidden = nn.Linear(n_features, width)
        self.gate = nn.Linear(width, width)
        self.output = nn.Linear(width, n_outputs)

    def forward(self, x):
        hidden = self.hidden(x)
        return self.output(hidden * self.gate(hidden).sigmoid())


@functools.cache
def cells(n):
    """Return three populations of n nets, whose training is no part of the job."""
    net, widths = NetClassifier(Gated, max_epochs=1), {"module__width": [2, 4, 8]}
    return ModelGrid(net, widths, n_estimators=n, random_state=0).fit(X, y)


def scores(folder, n_jobs):
    scorer = LMCScorer(aligner=LoggedAligner(), n_alphas=3, cache_dir=folder, n_jobs=n_jobs)
    frame = scorer.grid(cells(3), X, y)
    return [frame.drop(columns=["condition", "failure"]).to_numpy(dtype=float)]


def pairwise(folder, n_jobs):
    nets = cells(4).cells_[0].estimators
    score = LMCScorer(aligner=LoggedAligner(), n_alphas=3, n_jobs=n_jobs).pairwise(nets, X, y)
    return [score.loss, score.error]


def width(folder, n_jobs):
    search = WidthSearchCV(
        population(2),
        start=2,
        max_width=4,
        target_barrier=0.0,
        min_skill=1.0,
        scoring=LMCScorer(n_alphas=3),
        cv=2,
        n_jobs=n_jobs,
        cache_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no width is enough
        search.fit(X, y)
    found = [search.cv_results_[f"split{k}_test_neg_barrier"] for k in range(2)]
    return found + weights(search.best_estimator_.estimators_)


JOBS = {job.__name__: job for job in (ensemble, grid, scores, pairwise, width)}
PIECES = {"ensemble": 6, "grid": 6, "scores": 9, "pairwise": 6, "width": 10}
LOST = {"ensemble": 1, "grid": 1, "scores": 3, "width": 1}  # by each worker, at most
KEEPS = sorted(set(JOBS) - {"pairwise"})  # pairwise has no folder: it begins anew


def run(name, folder, n_jobs=None) -> str:
    """Run a job and return a digest of the bytes that it found."""
    parts = JOBS[name](folder, n_jobs)
    return hashlib.sha256(
        b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    ).hexdigest()


@contextlib.contextmanager
def workers(backend):
    """Let joblib use a backend; that of dask gets a cluster of two processes."""
    if backend != "dask":
        with joblib.parallel_config(backend):
            yield
        return
    from dask.distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, Client(cluster), joblib.parallel_config("dask"):
        yield


def main(name, folder, backend):
    """Run a job on two workers, once more after Ctrl-C, and write down what it found."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells ignore it
    with workers(backend):
        try:
            found = run(name, Path(folder) / "cache", n_jobs=2)
        except KeyboardInterrupt:
            (Path(folder) / "interrupted").write_text("")
            found = run(name, Path(folder) / "cache", n_jobs=2)
    (Path(folder) / "found").write_text(found)
