"""Hierarchical clusters of models by the barriers between them."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from sklmc._validation import check_array, check_integer, check_number, check_option

LINKAGES = ("single", "complete", "average", "weighted")
SPACES = ("distance", "rows")


@dataclasses.dataclass(frozen=True, eq=False)
class ModelClusters:
    """A hierarchy of models, as :meth:`sklmc.PairwiseScore.cluster` returns it.

    Parameters
    ----------
    linkage : ndarray of shape (n_models - 1, 4)
        The merges, as ``scipy.cluster.hierarchy`` writes them.
    matrix : ndarray of shape (n_models, n_models)
        The barriers that were clustered.

    Attributes
    ----------
    order : ndarray of shape (n_models,)
        Models in the order of the dendrogram's leaves.

    See Also
    --------
    sklmc.PairwiseScore.cluster : Makes it.

    References
    ----------
    .. [1] Gower and Ross, "Minimum spanning trees and single linkage cluster analysis", 1969.

    Examples
    --------
    >>> import numpy as np
    >>> from sklmc.connectivity import ModelClusters
    >>> clusters = ModelClusters(
    ...     linkage=np.array([[0.0, 1.0, 0.1, 2.0], [2.0, 3.0, 0.8, 3.0]]),
    ...     matrix=np.array([[0.0, 0.1, 0.9], [0.1, 0.0, 0.8], [0.9, 0.8, 0.0]]),
    ... )
    >>> clusters.labels(height=0.5).tolist()
    [0, 0, 1]
    """

    linkage: np.ndarray
    matrix: np.ndarray

    def __post_init__(self) -> None:
        """Refuse what is no hierarchy of as many models as the matrix has rows."""
        n = len(check_array(self.matrix, "ModelClusters", "matrix", (None, None)))
        check_array(self.matrix, "ModelClusters", "matrix", (n, n))
        check_array(self.linkage, "ModelClusters", "linkage", (n - 1, 4))

    @property
    def order(self) -> np.ndarray:
        """Models in the order of the leaves."""
        return hierarchy.leaves_list(self.linkage)

    def labels(self, height: float | None = None, *, n_clusters: int | None = None) -> np.ndarray:
        """Cut the hierarchy.

        Parameters
        ----------
        height : float, default=None
            Clusters are what was merged at this height or below.
        n_clusters : int, default=None
            Cut into this many clusters instead (fewer where merges tie).

        Returns
        -------
        labels : ndarray of shape (n_models,)
            Numbered from 0 in the order of the first model of each.
        """
        if (height is None) == (n_clusters is None):
            raise ValueError(
                "ModelClusters.labels: pass either 'height' or 'n_clusters', got "
                f"{height!r} and {n_clusters!r}."
            )
        if n_clusters is not None:
            check_integer(n_clusters, "ModelClusters.labels", "n_clusters", 1)
            found = hierarchy.fcluster(self.linkage, n_clusters, criterion="maxclust")
        else:
            check_number(height, "ModelClusters.labels", "height")
            found = hierarchy.fcluster(self.linkage, height, criterion="distance")
        _, first, codes = np.unique(found, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(first))[codes]


def cluster_models(matrix: np.ndarray, linkage: str, on: str, caller: str) -> ModelClusters:
    """Cluster models by a symmetric matrix of barriers with a zero diagonal."""
    check_option(linkage, LINKAGES, caller, "linkage")
    check_option(on, SPACES, caller, "on")
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        a, b = bad[0].tolist()
        raise ValueError(
            f"{caller}: the barrier between models {a} and {b} is {matrix[a, b]!r}; leave out "
            "models whose paths are not finite."
        )
    distances = squareform(matrix, checks=False) if on == "distance" else pdist(matrix)
    merges = hierarchy.linkage(distances, linkage, optimal_ordering=True)
    return ModelClusters(linkage=merges, matrix=matrix)
