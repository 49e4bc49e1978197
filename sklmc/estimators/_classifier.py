"""A torch module as a scikit-learn classifier."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np
import torch
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.utils import is_dataset, to_numpy
from torch import nn
from torch.utils.data import DataLoader

from sklmc._sklearn import StrOptions, check_is_fitted
from sklmc.estimators._net import ArrayNet
from sklmc.estimators._net_data import read_codes
from sklmc.estimators._sample_weights import weights_of_classes
from sklmc.nets import MLP


class NetClassifier(ArrayNet, NeuralNetClassifier):
    """Neural network classifier: a ``skorch.NeuralNetClassifier`` with scikit-learn's manners.

    It takes any array-like, casts it, encodes labels, tells the module the sizes of the data,
    seeds itself and is silent. Whatever else skorch offers works as it does there: callbacks,
    history, learning rate schedulers, ``device``, ``module__...``, ``optimizer__...``.

    Parameters
    ----------
    module : type or callable, default=MLP
        A torch.nn.Module class (or a function that returns a new module) that returns logits.
        ``n_features``, ``n_outputs`` and ``n_channels`` are handed to it from the data where
        its constructor takes them and the user has not set them with ``module__...``. Instances
        are refused.
    criterion : type or callable, default=torch.nn.CrossEntropyLoss
        The loss. With ``torch.nn.BCEWithLogitsLoss`` and two classes the module gets one output.
    optimizer : type or callable, default=torch.optim.Adam
        The optimizer; its arguments are set with ``optimizer__...``.
    lr : float, default=0.01
        Learning rate.
    max_epochs : int, default=50
        Passes over the data of one fit.
    batch_size : int, default=32
        Samples per step; -1 takes all at once.
    iterator_train : type or callable, default=torch.utils.data.DataLoader
        What cuts the training data into batches.
    iterator_train__shuffle : bool, default=True
        Whether each epoch takes the samples in a new order.
    iterator_valid : type or callable, default=torch.utils.data.DataLoader
        What cuts data into batches for validation and prediction.
    dataset : type or callable, default=skorch.dataset.Dataset
        What wraps the arrays.
    train_split : callable or None, default=None
        Splits validation data off, ``skorch.dataset.ValidSplit(5)`` for example;
        ``skorch.helper.predefined_split(Dataset(X, y))`` takes X and y as fit does.
    callbacks : list, "disable" or None, default=None
        skorch callbacks, besides its default ones.
    predict_nonlinearity : callable, "auto" or None, default="auto"
        What turns outputs into probabilities; "auto" decides by `criterion` (softmax for
        CrossEntropyLoss).
    warm_start : bool, default=False
        Whether fit goes on with the weights that are there.
    classes : array-like of shape (n_classes,), default=None
        All labels, in the order of the outputs; None takes the sorted labels of `y`.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes by label (1 where a label is missing), which multiply those of the
        samples. "balanced" gives every class in `y` the same sum of weights. None means 1 each.
    device : str, torch.device or None, default="cpu"
        Where the module computes.
    compile : bool, default=False
        Whether the module goes through ``torch.compile``.
    use_caching : bool or "auto", default="auto"
        Whether scoring callbacks reuse the outputs of the validation pass.
    torch_load_kwargs : dict or None, default=None
        Arguments of ``torch.load`` when parameters are loaded.
    dtype : {"float32", "float64"} or None, default="float32"
        What X and the module's weights are cast to. None keeps them as they are, which token
        ids need.
    random_state : int, RandomState instance or None, default=None
        Seeds the weights and the order of the samples. None draws afresh in each fit. The
        global generators of torch, numpy and random stay as they were.
    verbose : int, default=0
        1 prints a line per epoch.
    **kwargs : object
        ``module__...``, ``criterion__...``, ``optimizer__...``, ``iterator_train__...``,
        ``iterator_valid__...``, ``dataset__...``, ``callbacks__...``, ``compile__...``.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained module, in eval mode after fit.
    classes_ : ndarray of shape (n_classes,)
        Labels in the order of the outputs.
    history_ : skorch.history.History
        Losses and times of each epoch.
    seed_ : int
        The seed of the last fit: `random_state`, or what was drawn from it.
    n_features_in_ : int
        Number of features (of channels, for images).
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X was a DataFrame whose column names are all strings.

    See Also
    --------
    NetRegressor : The same for regression.
    DeepEnsemble : Many nets that differ by seed only.
    sklmc.nets.MLP : The default module.

    Notes
    -----
    A fit runs on one thread and takes its random numbers in a fixed order: the module is built
    with torch's generator seeded by ``seed_``; epoch e runs on a seed derived from ``seed_`` and
    e, whose first draw is the order of the samples. The same seed gives the same bits on the
    same machine, whatever ran before.

    A net with batch norm leaves out a last training batch of one sample.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklmc import NetClassifier
    >>> X, y = make_moons(200, noise=0.1, random_state=0)
    >>> net = NetClassifier(module__width=16, max_epochs=20, random_state=0).fit(X, y)
    >>> bool(net.score(X, y) > 0.85)
    True
    """

    _parameter_constraints: dict = {
        **ArrayNet._parameter_constraints,
        "classes": ["array-like", None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        module=MLP,
        *,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=50,
        batch_size=32,
        iterator_train=DataLoader,
        iterator_train__shuffle=True,
        iterator_valid=DataLoader,
        dataset=Dataset,
        train_split=None,
        callbacks=None,
        predict_nonlinearity="auto",
        warm_start=False,
        classes=None,
        class_weight=None,
        device="cpu",
        compile=False,
        use_caching="auto",
        torch_load_kwargs=None,
        dtype="float32",
        random_state=None,
        verbose=0,
        **kwargs,
    ):
        super().__init__(locals())

    @property
    def classes_(self) -> np.ndarray:
        """Labels in the order of the module's outputs."""
        try:
            return vars(self)["classes_inferred_"]
        except KeyError:
            if self.classes is None or not self.initialized_:
                raise AttributeError(
                    f"{type(self).__name__} knows no 'classes_' before it is fitted."
                ) from None
            return np.asarray(self.classes)

    def _check_training_data(self, X, y, new: bool, classes=None):
        """Validate X and y, learn the classes of a new net, and encode y."""
        X, y = self._check_both(X, y, reset=new)
        inside = is_dataset(X) and y is None  # codes, which go to the criterion as they are
        y = read_codes(X, type(self).__name__) if inside else column_or_1d(y)
        if not inside:
            check_classification_targets(y)
        if new:
            self._learn_classes(y, classes)
            self._remember_sizes(X, self._n_outputs())
        return X, None if inside else self._encode(y)

    def _weigh_classes(self, X, y, weights: np.ndarray | None) -> np.ndarray | None:
        """Return the weights of the samples times those of their classes."""
        if self.class_weight is None:
            return weights
        caller = type(self).__name__
        codes = read_codes(X, caller) if y is None else y
        own = weights_of_classes(self.class_weight, self.classes_, codes, weights, caller)
        total = own if weights is None else own * weights
        if not total.any():
            raise ValueError(
                f"{caller}: 'class_weight' {self.class_weight!r} leaves no sample with a weight."
            )
        return total

    def _learn_classes(self, y: np.ndarray, classes) -> None:
        """Store the labels that the outputs stand for; there must be two at least."""
        given = self.classes if self.classes is not None else classes
        found = np.unique(y) if given is None else np.asarray(_listed(given))
        if len(found) < 2:
            raise ValueError(
                f"{type(self).__name__}: 'y' holds one class only ({found.tolist()!r}); a "
                "classifier needs samples of at least two classes, or 'classes' with all of them."
            )
        self.classes_inferred_ = found

    def _n_outputs(self) -> int:
        """Return how many outputs the module should have."""
        single = _is_binary_loss(self.criterion) and len(self.classes_) == 2
        return 1 if single else len(self.classes_)

    def _encode(self, y: np.ndarray) -> np.ndarray:
        """Return the positions of labels in ``classes_``."""
        places = {label: place for place, label in enumerate(self.classes_.tolist())}
        try:
            return np.array([places[label] for label in y.tolist()], dtype=np.int64)
        except KeyError:
            unknown = sorted({repr(label) for label in y.tolist() if label not in places})
            raise ValueError(
                f"{type(self).__name__}: 'y' holds labels that the net does not know "
                f"({', '.join(unknown[:5])}); it knows {self.classes_.tolist()!r}. Pass all that "
                "will come as 'classes'."
            ) from None

    def _decode_target(self, codes) -> np.ndarray:
        """Return the labels that codes stand for."""
        return self.classes_[np.asarray(codes).astype(np.int64)]

    def _model_target(self, y) -> np.ndarray:
        """Return y as integer codes, the positions of its labels in ``classes_``."""
        check_is_fitted(self)
        return self._encode(column_or_1d(to_numpy(y) if isinstance(y, torch.Tensor) else y))

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Return the loss of one batch: where its samples have weights, their weighted mean.

        Parameters
        ----------
        y_pred : torch.Tensor
            What the module returned.
        y_true : torch.Tensor
            Codes of the labels.
        *args : object
            Handed on to skorch.
        **kwargs : object
            Handed on to skorch.

        Returns
        -------
        torch.Tensor
            The loss, a scalar.

        Raises
        ------
        ValueError
            If the module has another number of outputs than there are classes.
        """
        if isinstance(y_pred, torch.Tensor) and y_pred.ndim <= 2:
            n_outputs = y_pred.shape[1] if y_pred.ndim == 2 else 1
            if n_outputs != self._n_outputs():
                raise ValueError(
                    f"{type(self).__name__}: the module returns {n_outputs} outputs for "
                    f"{len(self.classes_)} classes; it should return {self._n_outputs()}. Set its "
                    "size with module__..., or name all labels with 'classes'."
                )
            if _is_binary_loss(self.criterion):
                y_true = y_true.to(y_pred.dtype)
                y_true = y_true.reshape(y_pred.shape) if n_outputs == 1 else y_true
        return super().get_loss(y_pred, y_true, *args, **kwargs)

    def predict_proba(self, X) -> np.ndarray:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities in the order of ``classes_``; the softmax of the logits where
            `criterion` is CrossEntropyLoss.
        """
        probabilities = super().predict_proba(X)
        return probabilities.reshape(len(probabilities), -1)

    def predict(self, X) -> np.ndarray:
        """Return the most probable label of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, of the kind that was handed to fit.
        """
        codes = self.predict_proba(X).argmax(axis=1)
        return self.classes_[codes]


def _is_binary_loss(criterion) -> bool:
    """Say whether a criterion reads one logit per sample."""
    return inspect.isclass(criterion) and issubclass(criterion, nn.BCEWithLogitsLoss)


def _listed(values) -> list:
    """Return an array-like as a list."""
    if not hasattr(values, "__len__") or isinstance(values, (str, bytes, Mapping, type)):
        raise TypeError(f"NetClassifier: 'classes' must be a list of labels, got {values!r}.")
    return values.tolist() if hasattr(values, "tolist") else list(values)
