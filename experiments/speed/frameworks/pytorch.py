"""PyTorch, eager, as its tutorials are written.

`torch` takes its batches by index from tensors in memory, `torch_loader` by a
DataLoader. Neither computes the training accuracy; the other frameworks do.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.speed import timing
from experiments.speed.frameworks import families, protocol

_RECURRENT = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """float32 [B, 28, 28] -> logits [B, 10]."""

    def __init__(self, name: str):
        super().__init__()
        self.recurrence = _RECURRENT[name](28, families.UNITS, batch_first=True)
        self.head = nn.Linear(families.UNITS, families.NUM_CLASSES)

    def forward(self, x):
        outputs, _ = self.recurrence(x)  # [B, 28, units]
        return self.head(outputs[:, -1])


def build(task: protocol.Task) -> protocol.Benchmark:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    model = build_model(task.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=families.LEARNING_RATE)
    loss_fn = nn.CrossEntropyLoss()
    make_batches = load_batches if task.framework == "torch_loader" else index_batches
    epoch_batches = make_batches(task)
    model.train()

    def train_epoch():
        running_loss = 0.0
        for images, labels in epoch_batches():
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
        return running_loss / task.num_steps

    return protocol.Benchmark(
        run_epoch=timing.timed(train_epoch),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        redundant_params=redundant_params(task.model),
        versions={"torch": torch.__version__},
    )


def build_model(name: str) -> nn.Module:
    """Takes images of the shape that `tensors` gives."""
    if name == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, families.NUM_CLASSES))
    if name == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(784, families.HIDDEN),
            nn.ReLU(),
            nn.Linear(families.HIDDEN, families.NUM_CLASSES),
        )
    if name == "cnn":
        return nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(1600, families.NUM_CLASSES),
        )
    return Recurrent(name)


def redundant_params(name: str) -> int:
    """Values of the recurrence's second bias that are only added to the first.

    All, but for the GRU's candidate, whose second bias is multiplied by the reset
    gate.
    """
    num_gates = {"rnn": 1, "lstm": 4, "gru": 2}.get(name, 0)
    return num_gates * families.UNITS


def tensors(task: protocol.Task) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [N, 1, 28, 28] for the cnn, else [N, 28, 28]; int64 [N]."""
    images = torch.from_numpy(protocol.to_float(task.images[..., 0]))
    labels = torch.from_numpy(task.labels).long()
    return images.unsqueeze(1) if task.model == "cnn" else images, labels


def index_batches(task: protocol.Task):
    images, labels = tensors(task)

    def epoch_batches():
        order = torch.randperm(len(images))
        for start in range(0, task.num_steps * task.batch_size, task.batch_size):
            indices = order[start : start + task.batch_size]
            yield images[indices], labels[indices]

    return epoch_batches


def load_batches(task: protocol.Task):
    loader = DataLoader(
        TensorDataset(*tensors(task)),
        batch_size=task.batch_size,
        shuffle=True,
        drop_last=True,
    )
    return lambda: loader


if __name__ == "__main__":
    protocol.serve(build)
