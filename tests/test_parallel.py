"""The programs of several devices; `test_many_devices.py` compares their numbers."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mnist_jax import datasets, models, parallel, step
from mnist_jax.config import ConfigError
from mnist_jax.cost import Work

NUM_STEPS, BATCH_SIZE = 10, 24

MODELS = {
    "mlp": models.MLP(hidden_sizes=(32,), dropout=0.3),
    "cnn": models.CNN(dropout=0.5),
    "gru": models.GRU(units=16, dropout=0.2),
}


@pytest.fixture(scope="module")
def digits(data_dir):
    dataset = datasets.load("digits", data_dir)
    return dataset.train_images[:256], dataset.train_labels[:256]


def run_steps(digits, model, num_devices, pieces=(NUM_STEPS,)):
    """The state and the history after some chunks over the same batches."""
    devices = parallel.choose_devices(num_devices, BATCH_SIZE)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    train_step = step.make_train_step(
        model,
        optimizer,
        augmentation="affine",
        label_smoothing=0.1,
        average=parallel.average,
    )
    chunk = parallel.make_train_chunk(train_step, devices)
    order = np.random.default_rng(1).permutation(256)[: NUM_STEPS * BATCH_SIZE]
    order = order.reshape(NUM_STEPS, BATCH_SIZE).astype(np.int32)
    order = parallel.split_order(order, num_devices)
    history = step.Metrics(*np.zeros((2, NUM_STEPS), np.float32))
    state = step.init_state(model, optimizer, 0)
    state, history, data = parallel.replicate((state, history, digits), devices)
    start = 0
    for length in pieces:
        state, history = chunk(
            state, history, *data, np.uint32(0), order, start, start + length
        )
        start += length
    return state, history


@pytest.mark.parametrize("name", MODELS)
def test_chunk_lengths_do_not_change_a_bit(digits, name):
    whole = run_steps(digits, MODELS[name], 2)
    pieces = run_steps(digits, MODELS[name], 2, (1, 4, 0, 2, 3))
    jax.tree.map(np.testing.assert_array_equal, whole, pieces)


def test_an_empty_chunk_changes_nothing(digits):
    state, history = run_steps(digits, MODELS["mlp"], 2, (0,))
    start = step.init_state(MODELS["mlp"], optax.adam(1e-3), 0)
    jax.tree.map(np.testing.assert_array_equal, state.params, start.params)
    assert state.step == 0 and not np.any(history.loss)


def test_chunk_equals_python_loop_of_jitted_steps(digits):
    model, optimizer = MODELS["gru"], optax.adam(1e-3)
    train_step = step.make_train_step(model, optimizer, augmentation="shift")
    images, labels = digits
    state = step.init_state(model, optimizer, 0)
    order = np.arange(4 * 8).reshape(4, 8)
    losses = []
    for rows in order:
        batch = step.Batch(images[rows], labels[rows], np.arange(8, dtype=np.int32))
        state, metrics = jax.jit(train_step)(state, batch, 0)
        losses.append(metrics.loss)

    devices = parallel.choose_devices(2, 8)
    chunk = parallel.make_train_chunk(
        step.make_train_step(
            model, optimizer, augmentation="shift", average=parallel.average
        ),
        devices,
    )
    _, history = chunk(
        step.init_state(model, optimizer, 0),
        step.Metrics(*jnp.zeros((2, 4))),
        images,
        labels,
        0,
        parallel.split_order(order.astype(np.int32), 2),
        0,
        4,
    )
    np.testing.assert_allclose(history.loss, losses, atol=1e-5)


def test_split_order_deals_each_batch_out_in_order():
    order = np.arange(12).reshape(2, 6)
    expected = [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]
    np.testing.assert_array_equal(parallel.split_order(order, 2), expected)


@pytest.mark.parametrize("num_images", [1, 39, 40, 41, 103])
def test_prediction_counts_every_image_once(digits, num_images):
    def eval_step(params, images):
        total = images.astype(jnp.float32).sum((1, 2, 3))
        return params * jnp.stack([total, -total], axis=-1)

    predict = parallel.make_predict(eval_step, jax.devices(), batch_size=10)
    got = predict(jnp.float32(2), digits[0][:num_images])
    total = 2 * digits[0][:num_images].astype(np.float32).sum((1, 2, 3))
    np.testing.assert_allclose(got, np.stack([total, -total], 1), rtol=1e-6)


def test_devices_chosen_divide_the_batch():
    count = lambda *arguments: len(parallel.choose_devices(*arguments))  # noqa: E731
    assert count(0, 128) == 4
    assert count(0, 32) == 4
    assert count(0, 24) == 3, "a device gets eight images at least"
    assert count(0, 51) == 3
    assert count(0, 97) == 1
    assert count(0, 1) == 1
    assert count(2, 8) == 2
    assert count(0) == 4


def test_small_models_stay_on_one_device():
    # 16 images are just short of the 2.3 million multiplications it takes.
    assert parallel.least_images(Work(143_749, 1000)) == 17
    assert parallel.least_images(Work(10**9, 1000)) == 8, "eight at least"
    count = lambda *arguments: len(parallel.choose_devices(*arguments))  # noqa: E731
    assert count(0, 64, 17) == 2
    assert count(0, 32, 17) == 1
    assert count(4, 32, 17) == 4, "what was asked for is done"


def test_only_models_that_keep_much_per_image_take_few_at_once():
    assert parallel.most_at_once(Work(101_632, 101_770)) is None
    assert parallel.most_at_once(Work(4_000_000, 34_826)) == 64


def test_missing_devices_are_refused():
    with pytest.raises(ConfigError, match="--num_devices=9: this machine has 4"):
        parallel.choose_devices(9, 90)


@pytest.mark.parametrize(
    "flags, num_devices, expected",
    [
        ("", 0, len(os.sched_getaffinity(0))),
        ("", 3, 3),
        ("--xla_force_host_platform_device_count=5", 0, 5),
        ("--xla_force_host_platform_device_count=5", 3, 5),
    ],
)
def test_start_makes_one_cpu_device_per_core(flags, num_devices, expected):
    code = (
        "from mnist_jax import parallel; "
        f"parallel.start({num_devices}); import jax; print(jax.device_count())"
    )
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(expected), done.stderr
