"""Training many nets that differ by their seed only at once: what ``vectorize`` stands for."""

from sklmc.estimators._vectorized._detection import VectorizeError
from sklmc.estimators._vectorized._plan import plan_training
from sklmc.estimators._vectorized._training import adopt, fit_vectorized

__all__ = ["VectorizeError", "adopt", "fit_vectorized", "plan_training"]
