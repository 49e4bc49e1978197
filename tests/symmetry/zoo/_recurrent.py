"""Recurrent nets."""

from __future__ import annotations

import torch
from torch import nn

from tests.symmetry.zoo._entries import entry


class Recurrent(nn.Module):
    def __init__(self, kind, last=False, width=6, **options):
        super().__init__()
        self.inp = nn.Linear(5, width)
        self.rnn = kind(width, 8, batch_first=True, **options)
        ways = 2 if options.get("bidirectional") else 1
        self.out = nn.Linear(options.get("proj_size", 0) or 8, 3)
        self.out = nn.Linear(self.out.in_features * ways, 3)
        self.last = last

    def forward(self, x):
        y, final = self.rnn(self.inp(x))
        if self.last:
            return self.out(final[0][-1] if isinstance(final, tuple) else final[-1])
        return self.out(y)


@entry((6, 1), (8, 1))
def lstm():
    return Recurrent(nn.LSTM), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def lstm_two_layers_last_state():
    return Recurrent(nn.LSTM, last=True, num_layers=2), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def lstm_bidirectional():
    return Recurrent(nn.LSTM, bidirectional=True), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (4, 1))
def lstm_projected():
    return Recurrent(nn.LSTM, proj_size=4), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def gru_two_layers():
    return Recurrent(nn.GRU, num_layers=2), (torch.randn(3, 4, 5),)


@entry((6, 1), (8, 1), (8, 1))
def rnn_bidirectional():
    return Recurrent(nn.RNN, bidirectional=True), (torch.randn(3, 4, 5),)


class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = torch.zeros(len(x), 8, dtype=x.dtype)
        for step in range(x.shape[1]):
            h = self.cell(x[:, step], h)
        return self.out(h)


@entry((8, 1))
def gru_cell():
    return CellLoop(), (torch.randn(3, 4, 5),)


class LSTMCellLoop(CellLoop):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(5, 8)

    def forward(self, x):
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return self.out(state[0])


@entry((8, 1))
def lstm_cell():
    return LSTMCellLoop(), (torch.randn(3, 4, 5),)
