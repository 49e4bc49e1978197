"""What a model is: unwrap and rebuild, states, outputs, losses, calibration, storage."""

from sklmc.models._calibration import (
    fit_inverse_temperature,
    fit_inverse_temperatures,
    scaled_cross_entropy,
)
from sklmc.models._copying import module_with_state, named_tensors, private_copy
from sklmc.models._data import read_data, read_target
from sklmc.models._fingerprint import Unreadable, fingerprint, name_fingerprint
from sklmc.models._losses import (
    class_logits,
    is_classification,
    per_sample_error,
    per_sample_loss,
)
from sklmc.models._outputs import (
    as_logits,
    capture_activations,
    count_multiply_adds,
    input_blocks,
    predict_outputs,
    run_module,
)
from sklmc.models._pipelines import common_input, see_through, transform
from sklmc.models._records import (
    STAYS_GOOD,
    Record,
    keeping,
    locked,
    open_folder,
    read_record,
    versions,
    write_json,
    write_record,
)
from sklmc.models._states import (
    average_models,
    average_states,
    check_compatible,
    check_finite,
    check_same_tensors,
    interpolate_models,
    interpolate_states,
)
from sklmc.models._storage import read_state, state_fingerprint, write_state
from sklmc.models._view import ModelView, view

__all__ = [
    "ModelView",
    "Record",
    "STAYS_GOOD",
    "Unreadable",
    "as_logits",
    "average_models",
    "average_states",
    "capture_activations",
    "check_compatible",
    "check_finite",
    "check_same_tensors",
    "class_logits",
    "common_input",
    "count_multiply_adds",
    "fingerprint",
    "fit_inverse_temperature",
    "fit_inverse_temperatures",
    "input_blocks",
    "interpolate_models",
    "interpolate_states",
    "is_classification",
    "keeping",
    "locked",
    "module_with_state",
    "name_fingerprint",
    "named_tensors",
    "open_folder",
    "per_sample_error",
    "per_sample_loss",
    "predict_outputs",
    "private_copy",
    "read_data",
    "read_record",
    "read_state",
    "read_target",
    "run_module",
    "scaled_cross_entropy",
    "see_through",
    "state_fingerprint",
    "transform",
    "versions",
    "view",
    "write_json",
    "write_record",
    "write_state",
]
