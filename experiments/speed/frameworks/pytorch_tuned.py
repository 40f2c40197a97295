"""PyTorch, tuned: `torch_tuned` is eager, `torch_compile` has model and loss compiled,
`torch_autocast` is eager with bfloat16 operands where PyTorch's autocast has them.

Over `pytorch`: fused Adam, batches by `index_select`, losses added up without a wait
for each. The cnn is in channels_last and takes ReLU after pooling: the same result from
a quarter of the values. torch.compile leaves PyTorch's recurrent layers as they are, so
the time steps of the rnn are written out for it; lstm and gru gain nothing from that,
and are not compiled.
"""

import torch
from torch import nn

from experiments.speed import timing
from experiments.speed.frameworks import families, protocol, pytorch


class UnrolledRNN(pytorch.Recurrent):
    """float32 [B, 28, 28] -> logits [B, 10]; the weights are nn.RNN's."""

    def forward(self, x):
        rnn = self.recurrence
        inputs = nn.functional.linear(
            x.transpose(0, 1), rnn.weight_ih_l0, rnn.bias_ih_l0
        )  # [28, B, units]
        h = x.new_zeros(len(x), families.UNITS)
        for projected in inputs.unbind(0):
            h = torch.tanh(
                projected + torch.addmm(rnn.bias_hh_l0, h, rnn.weight_hh_l0.t())
            )
        return self.head(h)


def build(task: protocol.Task) -> protocol.Benchmark:
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    compiled = task.framework == "torch_compile"
    model = build_model(task.model, compiled)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=families.LEARNING_RATE, fused=True
    )
    cross_entropy = nn.CrossEntropyLoss()
    images, labels = tensors(task)

    autocast = torch.autocast(
        "cpu", torch.bfloat16, enabled=task.framework == "torch_autocast"
    )

    def loss_fn(images, labels):
        with autocast:
            return cross_entropy(model(images), labels)

    if compiled:
        loss_fn = torch.compile(loss_fn)
    num_images = task.num_steps * task.batch_size
    model.train()

    def train_epoch():
        total = torch.zeros(())
        order = torch.randperm(len(images))[:num_images]
        for indices in order.split(task.batch_size):
            batch = images.index_select(0, indices)
            if task.model == "cnn":
                # NHWC in memory, so channels_last to PyTorch.
                batch = batch.permute(0, 3, 1, 2)
            optimizer.zero_grad()
            loss = loss_fn(batch, labels.index_select(0, indices))
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / task.num_steps

    return protocol.Benchmark(
        run_epoch=timing.timed(train_epoch),
        num_params=sum(parameter.numel() for parameter in model.parameters()),
        redundant_params=pytorch.redundant_params(task.model),
        versions={"torch": torch.__version__},
    )


def build_model(name: str, compiled: bool) -> nn.Module:
    """Takes images of the shape that `tensors` gives; the cnn permuted to NCHW."""
    if name == "cnn":
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 64, 3),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(1600, families.NUM_CLASSES),
        )
        return model.to(memory_format=torch.channels_last)
    if name == "rnn" and compiled:
        return UnrolledRNN(name)
    return pytorch.build_model(name)


def tensors(task: protocol.Task) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 [N, 28, 28, 1] for the cnn, else [N, 28, 28]; int64 [N]."""
    images = protocol.to_float(task.images)
    if task.model != "cnn":
        images = images[..., 0]
    return torch.from_numpy(images), torch.from_numpy(task.labels).long()


if __name__ == "__main__":
    protocol.serve(build)
