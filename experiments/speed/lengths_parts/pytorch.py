"""One of PyTorch's recurrences at one length, with fused Adam.

python -m experiments.speed.lengths_parts.pytorch '["gru", 784, 128, 2.0, 149, 2]'
"""

import json
import sys

import torch
from torch import nn

from experiments.speed.lengths_parts import training


class Recurrent(nn.Module):
    """float32 [B, T, 1] -> logits [B, 10], of the last state."""

    def __init__(self, name: str, units: int):
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[name]
        self.recurrence = kind(1, units, batch_first=True)
        self.head = nn.Linear(units, 10)

    def forward(self, x):
        return self.head(self.recurrence(x)[0][:, -1])


def main() -> None:
    model, length, batch_size, seconds, units, threads = json.loads(sys.argv[1])
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = torch.rand(batch_size, length, 1)
    labels = torch.randint(10, (batch_size,))
    loss_fn = nn.CrossEntropyLoss()

    def make_step():
        module = Recurrent(model, units)
        optimizer = torch.optim.Adam(module.parameters(), fused=True)

        def step():
            optimizer.zero_grad()
            loss = loss_fn(module(images), labels)
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    print(json.dumps(training.measure(make_step, batch_size, seconds)))


if __name__ == "__main__":
    main()
