"""Training on a device: against the CPU, against itself, and how fast."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments.speed import plain_runs
from experiments.speed.accelerator_parts import runs
from mnist_jax import metrics, train_step
from mnist_jax.config import Config, make_config
from mnist_jax.parallel import programs

_STEPS = 10
LOSS_LIMIT = 1e-3  # of ten steps; rounding grows from step to step

Arrays = tuple[np.ndarray, np.ndarray]


def check_model(
    model: str, dataset: str, arrays: Arrays, device: jax.Device, cpu: jax.Device
) -> dict[str, Any]:
    """Losses of ten steps against the CPU's, and bits against its own.

    Args:
      model: whose preset trains, in float32, with all that is random.
      dataset: whose preset.
      arrays: images and labels.
      device: to check.
      cpu: whose losses are taken to be right.
    """
    config = make_config(model, dataset, validation_fraction=0.0, batch_size=64)
    images, labels = (x[: 2 * _STEPS * 64] for x in arrays)

    def start(place):
        return runs.make_trainer(config, images, labels, [place])

    on_cpu = start(cpu)
    on_cpu.run(0, _STEPS)
    expected = on_cpu.metrics()["loss"][:_STEPS]
    one, other, third = start(device), start(device), start(device)
    for trainer in (one, other):
        trainer.run(0, _STEPS)
    losses = one.metrics()["loss"][:_STEPS]
    state, history = one.fetch_state(), one.metrics()
    repeats = runs.same_bits(state, other.fetch_state())
    one.run(_STEPS, 2 * _STEPS)
    third.set_state(state, history)
    third.run(_STEPS, 2 * _STEPS)
    resumes = runs.same_bits(one.fetch_state(), third.fetch_state())
    difference = float(np.abs(losses - expected).max())
    return {
        "model": model,
        "first_loss": float(losses[0]),
        "loss_difference": difference,
        "repeats": repeats,
        "resumes": resumes,
        "is_right": difference <= LOSS_LIMIT and repeats and resumes,
    }


def epoch_seconds(
    model: str,
    batch_size: int,
    precision: str,
    dataset: str,
    arrays: Arrays,
    device: jax.Device,
) -> dict[str, Any]:
    """Seconds of the second epoch, without augmentation and dropout."""
    config = plain_runs.make_plain_config(
        model, batch_size, dataset=dataset, validation_fraction=0.0, precision=precision
    )
    trainer = runs.make_trainer(config, *arrays, [device])
    compiled = trainer.compile()
    trainer.run_epoch(0)
    began = time.perf_counter()
    trainer.run_epoch(1)
    seconds = time.perf_counter() - began
    return {
        "model": model,
        "batch_size": batch_size,
        "precision": precision,
        "compile_seconds": compiled,
        "seconds": seconds,
        "images_per_second": trainer.num_steps * batch_size / seconds,
    }


def torch_epoch_seconds(model: str, batch_size: int, arrays: Arrays) -> float | None:
    """The same of eager PyTorch on its GPU in float32; None where there is none."""
    try:
        import torch
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    from experiments.speed.frameworks import families, pytorch

    # Else convolutions and recurrences round their operands to 10 bits.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    images, labels = (torch.from_numpy(x).cuda() for x in arrays)
    images = images[..., 0].float() / 255
    images = images.unsqueeze(1) if model == "cnn" else images
    labels = labels.long()
    network = pytorch.build_model(model).cuda()
    optimizer = torch.optim.Adam(
        network.parameters(), lr=families.LEARNING_RATE, fused=True
    )
    loss_fn = torch.nn.CrossEntropyLoss()

    def train_epoch():
        order = torch.randperm(len(images), device="cuda")
        for own in order.split(batch_size)[: len(images) // batch_size]:
            optimizer.zero_grad()
            loss_fn(network(images[own]), labels[own]).backward()
            optimizer.step()
        torch.cuda.synchronize()

    train_epoch()
    began = time.perf_counter()
    train_epoch()
    return time.perf_counter() - began


def train_fast(
    config: Config, train: Arrays, test: Arrays, device: jax.Device
) -> dict[str, float]:
    """Seconds of training that a preset takes, and its test accuracy at the end."""
    config = dataclasses.replace(config, validation_fraction=0.0)
    trainer = runs.make_trainer(config, *train, [device])
    trainer.compile()
    began = time.perf_counter()
    for epoch in range(config.epochs):
        trainer.run_epoch(epoch)
    seconds = time.perf_counter() - began
    model = runs.make_parts(config, len(train[0]), train[0].shape[1:], 10).model
    predict = programs.make_predict(train_step.make_eval_step(model), [device])
    logits = predict(trainer.state.eval_params, test[0])
    score = metrics.score(logits, test[1])
    return {"seconds": seconds, "test_accuracy": score["accuracy"]}


def within(seconds: float) -> Callable[[], bool]:
    """A function that tells whether less than that has passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
