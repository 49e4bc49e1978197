"""Three recurrent nets that others trained to hear beats, and music as the frames that they take.

`BeatNet` 1.1.3 holds three nets of its own module (a convolution, a layer, two LSTM layers, which
keep their state from call to call; 0.4M parameters), each trained without one collection of songs.
The music here is made: drums and chords of random tempo and metre, 5 to 10 seconds each.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from packaged_nets import read_checkpoint
from torch import nn

MODELS = "BeatNet/models/model_{i}_weights.pt"
RATE, WINDOW, HOP = 22050, 1411, 441  # hertz, samples
PER_OCTAVE, LOWEST, HIGHEST = 24, 30.0, 17000.0
SECONDS = (5.0, 10.0)


def load_members(packages: Path) -> list[nn.Module]:
    """Return the three nets; packages must be on the path, for their module is the package's."""
    module = importlib.import_module("BeatNet.model").BDA
    nets = []
    for i in (1, 2, 3):
        net = module(272, 150, 2, "cpu")
        net.load_state_dict(read_checkpoint(packages / MODELS.format(i=i)))
        nets.append(net.eval())
    return nets


def songs(n: int, seed: int) -> list[tuple[torch.Tensor]]:
    """Return batches of one song each: frames (1, n_frames, 272)."""
    rng = np.random.RandomState(seed)
    bank = _filters()
    return [(torch.from_numpy(_frames(_song(rng), bank))[None],) for _ in range(n)]


def _song(rng: np.random.RandomState) -> np.ndarray:
    """Return drums on the beats of a bar and a chord that changes with it, with some noise."""
    time = np.arange(int(RATE * rng.uniform(*SECONDS))) / RATE
    sound = rng.uniform(0.001, 0.02) * rng.randn(len(time))
    beat, metre = 60 / rng.uniform(70, 180), rng.randint(2, 5)
    loudness = rng.uniform(0.2, 0.8, size=3)
    for number, start in enumerate(np.arange(rng.uniform(0, beat), time[-1], beat / 2)):
        since = np.clip(time - start, 0, None)
        struck = time >= start
        if number % 2 == 0 and (number // 2) % metre == 0:  # the bar: a kick and a chord
            sound += loudness[0] * struck * np.sin(2 * np.pi * 55 * since) * np.exp(-since / 0.08)
            root = 110 * 2 ** (rng.randint(12) / 12)
            for third in (1, 2 ** (4 / 12), 2 ** (7 / 12)):
                tone = np.sin(2 * np.pi * root * third * since)
                sound += 0.1 * loudness[2] * struck * tone * np.exp(-since / (beat * metre / 2))
        elif number % 2 == 0:  # a beat: a snare
            sound += loudness[1] * struck * rng.randn(len(time)) * np.exp(-since / 0.05)
        else:  # between beats: a hat
            noise = np.diff(rng.randn(len(time)), prepend=0)
            sound += 0.1 * struck * noise * np.exp(-since / 0.02)
    return sound / np.abs(sound).max()


def _filters() -> np.ndarray:
    """Return triangular filters at even distances of pitch, each of sum one: (705, 136)."""
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)[: WINDOW // 2]
    steps = np.arange(-100 * PER_OCTAVE, 100 * PER_OCTAVE)
    pitches = 440 * 2.0 ** (steps / PER_OCTAVE)
    pitches = pitches[(pitches >= LOWEST) & (pitches <= HIGHEST)]
    places = np.unique([np.abs(bins - pitch).argmin() for pitch in pitches])
    columns = []
    for left, middle, right in _triples(places):
        column = np.zeros(len(bins))
        column[left:middle] = np.linspace(0, 1, middle - left, endpoint=False)
        column[middle:right] = np.linspace(1, 0, right - middle, endpoint=False)
        columns.append(column / column.sum())
    return np.stack(columns, axis=1)


def _triples(places: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield where each triangle starts, peaks and ends; one that is too short is a single bin."""
    for left, middle, right in zip(places, places[1:], places[2:]):
        yield (left, middle, right) if right - left >= 2 else (middle, middle, middle + 1)


def _frames(sound: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Return the logarithm of the filtered spectrum and how it rises: (n_frames, 272)."""
    n_frames = int(np.ceil(len(sound) / HOP))
    padded = np.concatenate([np.zeros(WINDOW // 2), sound, np.zeros(WINDOW + HOP)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:n_frames]
    spectrum = np.abs(np.fft.rfft(windows * np.hanning(WINDOW)))[:, : WINDOW // 2]
    level = np.log10(spectrum @ bank + 1)
    rise = np.clip(np.diff(level, axis=0, prepend=level[:1]), 0, None)
    return np.hstack([level, rise]).astype(np.float32)
