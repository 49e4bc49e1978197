"""What a model is: unwrap and rebuild, states, outputs, losses, calibration, storage.

Machinery between rooms, without an `__all__`: what users need of it stands in sklmc itself.
"""

from sklmc.models._calibration import (
    fit_inverse_temperature,
    fit_inverse_temperatures,
    scaled_cross_entropy,
)
from sklmc.models._copying import (
    OF_EVERY_MODULE,
    SpentState,
    State,
    batch_statistics_copy,
    module_with_state,
    named_tensors,
    private_copy,
    tensors_in,
)
from sklmc.models._data import read_data, read_labelled_data, read_target
from sklmc.models._fingerprint import Unreadable, fingerprint, name_fingerprint
from sklmc.models._forward import (
    Call,
    Reader,
    Reading,
    Watcher,
    end_pass,
    find_chain,
    first_tensor,
    read_once,
)
from sklmc.models._inputs import BLOCK_ROWS, Arrays, Batches, Inputs, Items
from sklmc.models._losses import (
    IGNORED,
    class_logits,
    is_classification,
    mean_over_samples,
    per_sample_error,
    per_sample_loss,
)
from sklmc.models._memory import ERRORS, run_afresh
from sklmc.models._model_lists import ensemble_members, list_models
from sklmc.models._moments import CrossMoments, Moments, correlation
from sklmc.models._outputs import (
    as_logits,
    count_multiply_adds,
    pick_output,
    plain_output,
    predict_outputs,
    run_module,
)
from sklmc.models._pipelines import view_together
from sklmc.models._provenance import PROVENANCE, describe, provenance_of, with_provenance
from sklmc.models._selection import select_output
from sklmc.models._states import (
    average_models,
    average_states,
    check_compatible,
    check_finite,
    check_state,
    interpolate_models,
    interpolate_states,
    view_compatible,
)
from sklmc.models._storage import (
    METADATA_KEY,
    STAYS_GOOD,
    Record,
    content_digest,
    keeping,
    locked,
    open_folder,
    raw_bytes,
    read_record,
    read_state,
    state_fingerprint,
    versions,
    write_json,
    write_record,
    write_state,
)
from sklmc.models._view import ModelView, view
