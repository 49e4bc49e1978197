"""The two messages of a merge in rounds: what is asked of sites, and what a site answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import torch

from sklmc.merging._sites._wire import pack, unpack
from sklmc.models import State

REQUEST, ANSWER = "moments_request", "site_moments"


class Message:
    """What requests and answers share: tensors under one name, and fields beside them."""

    _kind: ClassVar[str]
    _held: ClassVar[str]  # the field that holds the tensors

    def to_bytes(self) -> bytes:
        """Return the message as bytes, in the form of safetensors.

        Returns
        -------
        bytes
            What `from_bytes` reads.
        """
        notes = {name: getattr(self, name) for name in _fields(self) if name != self._held}
        return pack(self._kind, notes, getattr(self, self._held))

    @classmethod
    def from_bytes(cls, data):
        """Return the message that bytes hold. Nothing in them is run.

        Parameters
        ----------
        data : bytes
            What `to_bytes` returned.

        Returns
        -------
        MomentsRequest or SiteMoments
            The message; :meth:`SiteCoordinator.add` looks whether an answer fits.
        """
        caller = f"{cls.__name__}.from_bytes"
        tensors, notes = unpack(cls._kind, data, caller)
        return cls(**{cls._held: tensors}, **_read_fields(cls, notes, cls._held, caller))

    @property
    def n_bytes(self) -> int:
        """Number of bytes that it takes to send the message once."""
        return len(self.to_bytes())


@dataclasses.dataclass(frozen=True, eq=False)
class MomentsRequest(Message):
    """What a :class:`SiteCoordinator` asks of every site in one round; the same for all.

    Attributes
    ----------
    task : str
        Digest of the nets, their order and the settings: which merge this is.
    round : int
        Number of the round, from 0.
    n_rounds : int
        Number of rounds of the merge, one for each regression.
    state : dict of str to Tensor
        The merged net so far, without tensors that this round's sums do not depend on.
    nets : dict of str to str
        The sites that are asked, and for each the digest of its aligned net.
    architecture : str
        Digest of shapes and layers, so that all mean the same by a round.
    by_labels : bool
        Whether the layer that gives the output is fitted to the labels of the sites.
    min_samples : int
        A site with fewer samples does not answer.

    See Also
    --------
    SiteCoordinator : Makes requests.
    site_moments : Answers one.

    Examples
    --------
    >>> from sklmc.merging import MomentsRequest, SiteCoordinator
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(n_features=2, n_outputs=2, width=4) for _ in range(2)]
    >>> request = SiteCoordinator(nets, sites=["Bern", "Graz"]).next_request()
    >>> again = MomentsRequest.from_bytes(request.to_bytes())
    >>> again.round, again.n_rounds, sorted(again.nets)
    (0, 2, ['Bern', 'Graz'])
    """

    task: str
    round: int
    n_rounds: int
    state: State
    nets: Mapping[str, str]
    architecture: str
    by_labels: bool
    min_samples: int

    _kind: ClassVar[str] = REQUEST
    _held: ClassVar[str] = "state"


@dataclasses.dataclass(frozen=True, eq=False)
class SiteMoments(Message):
    """All that leaves a site in one round: sums over its samples, never a sample.

    Attributes
    ----------
    task : str
        Which merge this belongs to.
    site : str
        Name of the site.
    round : int
        Number of the round that it answers.
    n_samples : int
        Number of samples behind the sums.
    tensors : dict of str to Tensor
        In float64. Of a layer with inputs h and goals t, group by group: "count" (rows),
        "input_means" (n_groups, p), "output_means" (n_groups, q), "input_products", the sums of
        h h' about the mean, the upper triangle row by row (n_groups, p (p + 1) / 2), and
        "output_products", those of t h' (n_groups, q, p). Of a batch norm that stands alone:
        "count", "means" and "squares" of its channels.

    See Also
    --------
    site_moments : Makes it.
    SiteCoordinator.add : Takes it in.

    Notes
    -----
    What sums can tell is said under :func:`site_moments`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.merging import SiteCoordinator, SiteMoments, site_moments
    >>> from sklmc.nets import MLP
    >>> nets = [MLP(n_features=2, n_outputs=2, width=4) for _ in range(2)]
    >>> coordinator = SiteCoordinator(nets, sites=["Bern", "Graz"])
    >>> X = np.random.default_rng(0).normal(size=(60, 2))
    >>> sums = site_moments(
    ...     coordinator.next_request(), coordinator.models_[1], X, site="Graz"
    ... )
    >>> again = SiteMoments.from_bytes(sums.to_bytes())
    >>> again.site, again.round, again.n_samples
    ('Graz', 0, 60)
    >>> [(name, tuple(one.shape)) for name, one in sorted(again.tensors.items())][1:3]
    [('input_means', (1, 2)), ('input_products', (1, 3))]
    """

    task: str
    site: str
    round: int
    n_samples: int
    tensors: Mapping[str, torch.Tensor]

    _kind: ClassVar[str] = ANSWER
    _held: ClassVar[str] = "tensors"


def _fields(message) -> list[str]:
    return [field.name for field in dataclasses.fields(message)]


_KINDS = {"int": int, "str": str, "bool": bool, "Mapping[str, str]": dict}


def _read_fields(cls: type, notes: Mapping, held: str, caller: str) -> dict:
    """Return the notes that are fields of a message, each of its kind."""
    found = {}
    for field in dataclasses.fields(cls):
        if field.name == held:
            continue
        value = notes.get(field.name)
        if type(value) is not _KINDS[str(field.type)]:
            raise ValueError(
                f"{caller}: 'data' holds {value!r} as its {field.name!r}; it was not written by "
                "to_bytes."
            )
        found[field.name] = value
    return found
