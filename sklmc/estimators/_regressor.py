"""A torch module as a scikit-learn regressor."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils import check_array
from skorch import NeuralNetRegressor
from skorch.dataset import Dataset
from torch import nn
from torch.utils.data import DataLoader

from sklmc._sklearn import available_if, check_is_fitted
from sklmc.estimators._net import ArrayNet
from sklmc.nets import MLP


class NetRegressor(ArrayNet, NeuralNetRegressor):
    """Neural network regressor: a ``skorch.NeuralNetRegressor`` with scikit-learn's manners.

    It takes any array-like, casts it, takes targets with one axis or two (predict returns the
    same), tells the module the sizes of the data, seeds itself and is silent. Whatever else
    skorch offers works as it does there.

    Parameters
    ----------
    module : type or callable, default=MLP
        A torch.nn.Module class (or a function that returns a new module) that returns predicted
        values. ``n_features``, ``n_outputs`` and ``n_channels`` are handed to it from the data
        where its constructor takes them and the user has not set them with ``module__...``.
        Instances are refused.
    criterion : type or callable, default=torch.nn.MSELoss
        The loss.
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
        What is applied to the outputs in predict; "auto" applies nothing.
    warm_start : bool, default=False
        Whether fit goes on with the weights that are there.
    device : str, torch.device or None, default="cpu"
        Where the module computes.
    compile : bool, default=False
        Whether the module goes through ``torch.compile``.
    use_caching : bool or "auto", default="auto"
        Whether scoring callbacks reuse the outputs of the validation pass.
    torch_load_kwargs : dict or None, default=None
        Arguments of ``torch.load`` when parameters are loaded.
    dtype : {"float32", "float64"} or None, default="float32"
        What X, y and the module's weights are cast to. None keeps X and the weights as they
        are, which token ids need.
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
    NetClassifier : The same for classification.
    DeepEnsemble : Many nets that differ by seed only.
    sklmc.nets.MLP : The default module.

    Notes
    -----
    Random numbers, threads and batch norm: as in NetClassifier. Targets are not scaled; put
    ``sklearn.compose.TransformedTargetRegressor`` around the net where they are far from unit
    size.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklmc import NetRegressor
    >>> X, y = make_regression(100, 3, random_state=0)
    >>> net = NetRegressor(max_epochs=20, random_state=0).fit(X, y / y.std())
    >>> net.predict(X).shape
    (100,)
    """

    def __init__(
        self,
        module=MLP,
        *,
        criterion=nn.MSELoss,
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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_training_data(self, X, y, new: bool, classes=None):
        """Validate X and y; y gets two axes and the dtype of the module's outputs."""
        X, y = self._check_both(X, y, reset=new, multi_output=True, y_numeric=True)
        if y is None:  # a Dataset holds its targets
            if new:
                self._remember_sizes(X, None)
            return X, None
        y = np.asarray(y)
        if new:
            self._target_shape = y.shape[1:]
            self._target_dtype = y.dtype if y.dtype.kind == "f" else np.dtype(np.float32)
            self._output_ndim = 2
            self._remember_sizes(X, int(np.prod(y.shape[1:])))
        return X, self._cast_target(y)

    def _cast_target(self, y: np.ndarray) -> np.ndarray:
        """Return y of shape (n_samples, n_outputs), cast as the module computes."""
        if y.shape[1:] != self._target_shape:
            raise ValueError(
                f"{type(self).__name__}: 'y' has shape {y.shape}, but the net was fitted on "
                f"targets of shape (n_samples, {', '.join(map(str, self._target_shape))})."
            )
        y = y.reshape(len(y), -1)
        return check_array(y, dtype=self.dtype or "float32", input_name="y")

    def _decode_target(self, y) -> np.ndarray:
        """Return targets in the shape that was handed to fit."""
        return np.asarray(y).reshape(-1, *self._target_shape)

    def _model_target(self, y) -> np.ndarray:
        """Return y as floats, in the shape of the module's outputs."""
        check_is_fitted(self)
        y = y.detach().cpu().numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
        y = self._cast_target(y)
        return y[:, 0] if self._output_ndim == 1 else y

    def get_loss(self, y_pred, y_true, *args, **kwargs):
        """Return the loss of one batch: where its samples have weights, their weighted mean.

        Parameters
        ----------
        y_pred : torch.Tensor
            What the module returned.
        y_true : torch.Tensor of shape (n_samples, n_outputs)
            The targets.
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
            If the module has another number of outputs than there are targets.
        """
        if isinstance(y_pred, torch.Tensor) and y_pred.shape != y_true.shape:
            if y_pred.numel() != y_true.numel():
                raise ValueError(
                    f"{type(self).__name__}: the module returns shape {tuple(y_pred.shape)} for "
                    f"targets of shape {tuple(y_true.shape)}; set its size with module__...."
                )
            self._output_ndim = y_pred.ndim
            y_true = y_true.reshape(y_pred.shape)
        return super().get_loss(y_pred, y_true, *args, **kwargs)

    @available_if(lambda self: False)
    def predict_proba(self, X):
        """Not available: a regressor has no probabilities.

        Parameters
        ----------
        X : array-like
            Not read.
        """

    def predict(self, X) -> np.ndarray:
        """Return the predicted targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, ...)
            As for fit.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Predictions with as many axes as the `y` of fit, and of its dtype if that was a
            float; the computation runs in `dtype`.
        """
        y = super().predict_proba(X)
        if "_target_shape" in vars(self):
            y = y.reshape(len(y), *self._target_shape).astype(self._target_dtype, copy=False)
        return y
