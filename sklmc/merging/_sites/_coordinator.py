"""What a coordinator does: it aligns nets, asks sites for sums layer by layer, and solves."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings

import numpy as np

from sklmc._validation import (
    check_integer,
    check_names,
    check_option,
    check_read_path,
    check_weights,
    check_written_path,
)
from sklmc.alignment import check_aligner
from sklmc.exceptions import SklmcWarning
from sklmc.merging._classes import widen_classes
from sklmc.merging._merge import align_models
from sklmc.merging._repairs._end_points import EndPoints
from sklmc.merging._repairs._layers import replace_tensors
from sklmc.merging._repairs._own_targets import solve_own
from sklmc.merging._repairs._parts import BY_PART
from sklmc.merging._repairs._refit import find_steps, in_turn
from sklmc.merging._repairs._repair import REPAIRS, needs_repair
from sklmc.merging._repairs._steps import find_head
from sklmc.merging._sites._messages import MomentsRequest, SiteMoments
from sklmc.merging._sites._progress import read_progress, write_progress
from sklmc.merging._sites._site import MIN_SAMPLES, architecture_digest
from sklmc.merging._sites._step_sums import check_sums, to_moments, unreached_tensors
from sklmc.models import (
    Arrays,
    describe,
    list_models,
    read_data,
    state_fingerprint,
    view,
    view_compatible,
    with_provenance,
)

NAME = "SiteCoordinator"


class SiteCoordinator:
    """Merge the nets of sites whose samples stay where they are.

    Every site trains a net and hands over its weights. The coordinator aligns the nets and
    averages them; then each layer is solved, in one round, from the sums that the sites send
    (:func:`site_moments`) towards what each site's own net gives on the site's own samples. The
    result is that of ``merge_models(models, [X_1, ..., X_k], target="own", repair="refit")``.

    Parameters
    ----------
    models : list of skorch nets, fitted sklmc estimators or torch.nn.Modules
        The nets of the sites, or what stands for them (see :func:`sklmc.merge_models`), as a pair
        of a model and state dicts. None is changed. Fitted classifiers may know different classes:
        the merged net knows all, and a class is learned from those sites that have seen it.
    X : array-like of shape (n_samples, ...), default=None
        Public samples, where an aligner needs any, or the shape of a net's input is not known.
    y : array-like of shape (n_samples,), default=None
        Labels of X, for aligners that learn from them.
    sites : list of str, default=None
        Names of the sites, in the order of the nets; None: "site_0", "site_1", ...
    aligner : str, aligner object or None, default="weight"
        How nets are aligned with the first; see :func:`merge_models`. "weight" needs no samples.
    target : {"own", "labels"}, default="own"
        What layers are fitted to: each site's own net, or, in the layer that gives the output,
        the site's labels.
    weights : array-like of shape (n_sites,), default=None
        Positive weights, as the number of samples of each site; None means equal weights.
    min_samples : int, default=50
        An answer with fewer samples behind it is refused, at the site already.

    Attributes
    ----------
    models_ : list of models
        The aligned nets, each to be sent back to its site.
    left_out_ : dict of str to str
        The sites that were left out, and why.
    averaged_ : list of str
        Weights that no round solves for, as tied or recurrent ones.
    n_rounds_ : int
        Number of rounds; 0 where the nets are equal or one.
    round_ : int
        The round that is open, from 0; `n_rounds_` after the last one.

    See Also
    --------
    site_moments : What a site does with a request.
    merge_models : The same where samples can be pooled.

    Notes
    -----
    A round sends what is solved so far to every site, and p (p + 1) / 2 + p q + p + q float64
    numbers back for a layer of p inputs and q outputs: see ``n_bytes`` of the messages. One
    thread at a time uses a coordinator. What it learns of samples: see :func:`site_moments`.

    Once a site is left out, the weights of the others are scaled to sum to one. Before the first
    request, its net then has no part in the result. Later, what was solved with its sums stays,
    and so does its share in tensors that no round solves for. Nothing is held back to judge by:
    let every site compare the merged net with its own on samples that neither was fitted to.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> from sklmc.merging import SiteCoordinator, site_moments
    >>> X, y = make_moons(600, noise=0.1, random_state=0)
    >>> parts = {"Bern": slice(0, 300), "Graz": slice(300, 600)}
    >>> nets = [
    ...     NetClassifier(random_state=i, max_epochs=20).fit(X[part], y[part])
    ...     for i, part in enumerate(parts.values())
    ... ]
    >>> coordinator = SiteCoordinator(nets, sites=list(parts))
    >>> aligned = dict(zip(parts, coordinator.models_))  # each goes back to its site
    >>> while (request := coordinator.next_request()) is not None:
    ...     for site in coordinator.waiting_for_:
    ...         coordinator.add(site_moments(request, aligned[site], X[parts[site]], site=site))
    >>> merged = coordinator.merge()
    >>> bool(merged.score(X, y) > 0.8)
    True
    """

    def __init__(
        self,
        models,
        X=None,
        y=None,
        *,
        sites=None,
        aligner="weight",
        target="own",
        weights=None,
        min_samples=MIN_SAMPLES,
    ):
        models = list_models(models, NAME)
        self.sites = _read_names(sites, len(models))
        check_aligner(aligner, NAME)
        self._target = check_option(target, BY_PART, NAME, "target")
        self._min_samples = check_integer(min_samples, NAME, "min_samples", 1)
        weights = check_weights(weights, len(models), NAME)
        if not weights.all():
            raise ValueError(
                f"{NAME}: 'weights' must be positive, got {weights.tolist()!r}; leave a site out "
                "with leave_out, or do not pass its net."
            )
        if y is not None and X is None:
            raise ValueError(f"{NAME}: 'y' was given without 'X'; pass the samples as well.")
        names = [f"models[{i}]" for i in range(len(models))]
        models, known, heads = widen_classes(models, NAME, names)
        self._parents = view_compatible(models, NAME, names)
        if X is not None:
            read_data(self._parents[0], X, y)
        self.models_ = align_models([one.model for one in self._parents], aligner, X, y)
        looks = [view(one, caller=NAME, name=name) for one, name in zip(self.models_, names)]
        self._look, self._aligner = looks[0], describe(aligner)
        self._nets = {site: state_fingerprint(one.state) for site, one in zip(self.sites, looks)}
        self._ends = EndPoints([one.state for one in looks], weights, known, heads)
        sample = Arrays(*self._look.sample(X))
        steps, left = find_steps(self._look, self._ends.mean(), sample)
        self._all_steps = list(in_turn(steps))
        self._check_labels()
        self._architecture = architecture_digest(self._look.state, self._all_steps)
        self._task = self._digest()
        self.left_out_: dict[str, str] = {}
        self._answers: dict[str, SiteMoments] = {}
        self._asked = False
        self._begin()
        self.averaged_ = left if self.n_rounds_ else []
        if self.averaged_:
            warnings.warn(
                f"{NAME}: rounds solve for linear, convolution and attention layers with weights "
                f"of their own; {len(left)} weights stay averaged, see averaged_: "
                f"{', '.join(left[:5])}.",
                SklmcWarning,
                stacklevel=2,
            )

    @property
    def n_rounds_(self) -> int:
        """Number of rounds."""
        return len(self._steps)

    @property
    def waiting_for_(self) -> list[str]:
        """The sites that have not answered the open round; empty after the last one."""
        if self.round_ == self.n_rounds_:
            return []
        return [site for site in self._present() if site not in self._answers]

    def next_request(self):
        """Return what to ask of every site now; the same until the round is closed.

        Returns
        -------
        MomentsRequest or None
            The request of the open round; None after the last one.
        """
        if self.round_ == self.n_rounds_:
            return None
        self._asked = True
        unreached = unreached_tensors(self._steps[self.round_ :])
        return MomentsRequest(
            task=self._task,
            round=self.round_,
            n_rounds=self.n_rounds_,
            state={name: one for name, one in self._state.items() if name not in unreached},
            nets={site: self._nets[site] for site in self._present()},
            architecture=self._architecture,
            by_labels=self._target == "labels",
            min_samples=self._min_samples,
        )

    def add(self, moments):
        """Take in the answer of one site; the last one that is missing closes the round.

        Parameters
        ----------
        moments : SiteMoments
            The answer; from bytes with ``SiteMoments.from_bytes``.

        Raises
        ------
        ValueError
            If the answer is late, is the site's second one, comes from a site that is unknown or
            was left out, belongs to another merge, rests on too few samples, or holds something
            else than the sums of this round. Nothing changes then.
        """
        caller = f"{NAME}.add"
        about = self._check_answer(moments, caller)
        check_sums(moments.tensors, self._steps[self.round_], self._ends, about)
        self._answers[moments.site] = moments
        self._close_if_complete()

    def close_round(self):
        """Go on without the sites that have not answered: they are left out, and named."""
        missing = self.waiting_for_
        if not self._answers:
            raise ValueError(
                f"{NAME}.close_round: no site has answered since the last round was closed; there "
                "is nothing to solve from."
            )
        for site in missing:
            self.left_out_[site] = f"sent nothing in round {self.round_}"
        self._share_weights()
        self._close_if_complete()

    def leave_out(self, site, reason="left out by the coordinator"):
        """Go on without one site from now on, whether it has answered this round or not.

        Parameters
        ----------
        site : str
            Its name.
        reason : str, default="left out by the coordinator"
            What `left_out_` is to say.
        """
        caller = f"{NAME}.leave_out"
        self._check_site(site, caller, "site")
        (reason,) = check_names([reason], caller, "reason")
        if self._present() == [site]:
            raise ValueError(f"{caller}: 'site' {site!r} is the last one; a merge needs a net.")
        if self.round_ == self.n_rounds_ and self._asked:
            raise ValueError(f"{caller}: 'site' {site!r} comes too late: all rounds are closed.")
        self.left_out_[site] = reason
        self._answers.pop(site, None)
        self._share_weights()
        if not self._asked:
            self._begin()
        self._close_if_complete()

    def merge(self):
        """Return the merged net, after the last round.

        Returns
        -------
        model : same kind as ``models[0]``
            A new model.
        """
        if self.round_ < self.n_rounds_:
            raise ValueError(
                f"{NAME}.merge: round {self.round_} of {self.n_rounds_} is open (rounds count from "
                f"0) and waits for {self.waiting_for_!r}; add their answers, or close_round()."
            )
        return with_provenance(
            self._look.rebuild(self._state), self._parents, NAME, aligner=self._aligner,
            repair="refit", target=self._target, weights=self._ends.weights.tolist(),
            left_out=dict(self.left_out_),
        )  # fmt: skip

    def save(self, path):
        """Write down how far the merge is, answers of the open round included; no pickle.

        Parameters
        ----------
        path : str or path-like
            The file; one that is there is replaced, and stays whole if this call is killed.
        """
        caller = f"{NAME}.save"
        notes = {
            "task": self._task,
            "round": self.round_,
            "n_rounds": self.n_rounds_,
            "asked": self._asked,
            "left_out": self.left_out_,
        }
        write_progress(check_written_path(path, caller), notes, self._state, self._answers, caller)

    def resume(self, path):
        """Go on where `save` wrote, with a coordinator made of the same nets and settings.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        self
            This coordinator, as far as the saved one was. Requests that sites have already got
            stay good.
        """
        caller = f"{NAME}.resume"
        notes, state, answers = read_progress(check_read_path(path, caller), caller)
        if notes["task"] != self._task:
            raise ValueError(
                f"{caller}: 'path' holds another merge: other nets, another order of them, or "
                "other settings; make the coordinator as the saved one was made."
            )
        self.left_out_, self._asked = dict(notes["left_out"]), notes["asked"]
        self._share_weights()
        self._steps = self._all_steps if notes["n_rounds"] else []
        self.round_, self._answers = notes["round"], answers
        self._state = {name: one.to(self._look.device) for name, one in state.items()}
        return self

    def _begin(self) -> None:
        """Start from the mean of the nets that are there; equal ones need no round."""
        self._state = dict(self._ends.mean())
        needed = needs_repair(self._look, self._ends, "refit")
        self._steps = self._all_steps if needed else []
        self.round_ = 0

    def _present(self) -> list[str]:
        return [site for site in self.sites if site not in self.left_out_]

    def _share_weights(self) -> None:
        """Give the sites that were left out no weight."""
        stays = [site not in self.left_out_ for site in self.sites]
        weights = np.where(stays, self._ends.weights, 0.0)
        self._ends = dataclasses.replace(self._ends, weights=weights / weights.sum())

    def _close_if_complete(self) -> None:
        """Solve the open round if no answer is missing."""
        if not self._answers or self.waiting_for_:
            return
        if self.round_ == 0:
            self._warn_of_few()
        given = {  # in the order of the sites, in whatever order they came
            index: to_moments(self._answers[site].tensors)
            for index, site in enumerate(self.sites)
            if site in self._answers
        }
        changes = solve_own(self._state, self._steps[self.round_], self._ends, given)
        replace_tensors(self._look, self._state, changes)
        self._answers = {}
        self.round_ += 1

    def _warn_of_few(self) -> None:
        """Say so where a refit on so few samples may harm."""
        n_samples = sum(one.n_samples for one in self._answers.values())
        if n_samples < REPAIRS["refit"].few:
            warnings.warn(
                f"{NAME}: all sites together have {n_samples} samples, so few that a refit may "
                "harm; compare the merged net with those of the sites.",
                SklmcWarning,
                stacklevel=4,
            )

    def _check_labels(self) -> None:
        step = find_head(self._all_steps)
        if self._target == "labels" and (step is None or step.head.kind != "linear"):
            raise ValueError(
                f"{NAME}: target='labels' needs a linear layer that gives the output; use "
                "target='own'."
            )

    def _check_site(self, site, caller: str, name: str) -> None:
        if not isinstance(site, str) or site not in self.sites:
            raise ValueError(f"{caller}: '{name}' must be one of {self.sites!r}, got {site!r}.")
        if site in self.left_out_:
            raise ValueError(
                f"{caller}: '{name}' {site!r} was left out: {self.left_out_[site]}; a merge goes "
                "on without such a site."
            )

    def _check_answer(self, moments, caller: str) -> str:
        """Refuse what does not answer the open round for the first time; say whose it is."""
        if not isinstance(moments, SiteMoments):
            raise TypeError(
                f"{caller}: 'moments' must be SiteMoments, got {type(moments).__name__}; bytes go "
                "through SiteMoments.from_bytes."
            )
        if moments.task != self._task:
            raise ValueError(
                f"{caller}: 'moments' of site {moments.site!r} belong to another merge: other nets "
                "or settings; answer the request of this one."
            )
        self._check_site(moments.site, caller, "moments.site")
        about = f"{caller}: 'moments' of site {moments.site!r}"
        if moments.round != self.round_:
            now = "all rounds are closed"
            if self.round_ < self.n_rounds_:
                now = f"round {self.round_} is open"
            raise ValueError(
                f"{about} answer round {moments.round}, but {now}; answer what next_request gives."
            )
        if moments.site in self._answers:
            raise ValueError(
                f"{about} came before in round {self.round_}; the first answer counts."
            )
        if moments.n_samples < self._min_samples:
            raise ValueError(
                f"{about} rest on {moments.n_samples} samples, fewer than {self._min_samples} "
                "('min_samples'); leave that site out."
            )
        return about

    def _digest(self) -> str:
        """Return a digest of all that the result depends on, but for the sums."""
        settings = (self._target, self._ends.weights.tolist(), self._min_samples)
        text = repr((list(self._nets.items()), settings, self._architecture))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read_names(sites, n_sites: int) -> list[str]:
    """Return one name for each site, no two alike."""
    if sites is None:
        return [f"site_{i}" for i in range(n_sites)]
    names = check_names(sites, NAME, "sites")
    if len(names) != n_sites or len(set(names)) != n_sites:
        raise ValueError(
            f"{NAME}: 'sites' must be {n_sites} different names, one for each net, got {names!r}."
        )
    return names
