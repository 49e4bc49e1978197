"""Models on disk: tensors in safetensors, all else in JSON, no pickle."""

from sklmc._persistence._loading import load_model
from sklmc._persistence._saving import save_model

__all__ = ["load_model", "save_model"]
