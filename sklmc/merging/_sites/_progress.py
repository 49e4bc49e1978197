"""How far a merge in rounds is, as a file: the merged net so far, and answers of the open round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sklmc.merging._sites._messages import SiteMoments
from sklmc.merging._sites._wire import FORMAT, check_version
from sklmc.models import State, content_digest, read_state, write_state

KIND = "sites_progress"


def write_progress(
    path: Path, notes: Mapping, state: State, answers: Mapping[str, SiteMoments], caller: str
) -> None:
    """Write a file, whole or not at all."""
    tensors = {f"state/{name}": one.cpu() for name, one in state.items()}
    kept = []
    for number, answer in enumerate(answers.values()):
        tensors |= {f"answer_{number}/{name}": one for name, one in answer.tensors.items()}
        kept.append({"site": answer.site, "n_samples": answer.n_samples})
    notes = {**notes, "answers": kept, "kind": KIND, "format": FORMAT}
    write_state(path, tensors, {**notes, "digest": content_digest(tensors, notes)}, caller)


def read_progress(path: Path, caller: str) -> tuple[dict, State, dict[str, SiteMoments]]:
    """Return notes, the merged net so far and the answers by site."""
    tensors, notes = read_state(path, caller)
    check_version(notes, KIND, f"'path' {str(path)!r}", caller)
    if notes.pop("digest", None) != content_digest(tensors, notes):
        raise ValueError(f"{caller}: 'path' {str(path)!r} is damaged; begin the merge again.")

    def below(place: str) -> dict:
        start = f"{place}/"
        return {n.removeprefix(start): one for n, one in tensors.items() if n.startswith(start)}

    answers = {
        kept["site"]: SiteMoments(
            notes["task"], kept["site"], notes["round"], kept["n_samples"], below(f"answer_{k}")
        )
        for k, kept in enumerate(notes["answers"])
    }
    return notes, below("state"), answers
