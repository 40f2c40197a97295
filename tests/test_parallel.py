"""Placement, programs and the choice of devices; `test_trainer.py` runs chunks."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from runs_of_launch import finish, start_python

from mnist_jax import data, train_step
from mnist_jax.flops import Work
from mnist_jax.models import make_model
from mnist_jax.parallel import devices, placement, programs
from mnist_jax.settings import ConfigError


@pytest.fixture(scope="module")
def digits(data_dir):
    dataset = data.load("digits", data_dir)
    return dataset.train_images[:256], dataset.train_labels[:256]


def test_chunk_equals_python_loop_of_jitted_steps(digits):
    model = make_model("mlp", 10, hidden_sizes=(16,), dropout=0.2)
    optimizer = optax.adam(1e-3)
    images, labels = digits
    first = train_step.init_state(model, optimizer, 5, images.shape[1:])
    order = np.arange(4 * 8, dtype=np.int32).reshape(4, 8)
    step = jax.jit(train_step.make_train_step(model, optimizer))
    losses, state = [], first
    for i, indices in enumerate(order):
        keys = train_step.image_keys(np.uint32(5), i, np.arange(8))
        batch = train_step.Batch(images[indices], labels[indices], keys)
        state, metrics = step(state, batch)
        losses.append(metrics["loss"])

    shared = train_step.make_train_step(model, optimizer, average=programs.average)
    chunk = programs.make_train_chunk(lambda hparams: shared, jax.devices()[:2])
    _, history = chunk(
        first, train_step.init_history(4), {"seed": np.uint32(5)}, images, labels,
        placement.shard_order(order, 2), 0, 4,
    )  # fmt: skip
    np.testing.assert_allclose(history["loss"], losses, atol=1e-5)


def test_orders_are_sharded_batch_by_batch():
    order = np.arange(12).reshape(2, 6)
    expected = [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5], [9, 10, 11]]]
    np.testing.assert_array_equal(placement.shard_order(order, 2), expected)


@pytest.mark.parametrize("num_members", [1, 3, 4, 5])
def test_members_are_sharded_and_gathered_again(num_members):
    tree = {"a": np.arange(2 * num_members).reshape(num_members, 2)}
    sharded = placement.shard_members(tree, 2)
    assert sharded["a"].shape == (2, -(-num_members // 2), 2)
    gathered = placement.gather_members(sharded, num_members)
    np.testing.assert_array_equal(gathered["a"], tree["a"])


@pytest.mark.parametrize("num_images", [1, 39, 40, 41, 103])
def test_prediction_counts_every_image_once(digits, num_images):
    def eval_step(params, images):
        total = images.astype(jnp.float32).sum((1, 2, 3))
        return params * jnp.stack([total, -total], axis=-1)

    predict = programs.make_predict(eval_step, jax.devices(), batch_size=10)
    got = predict(jnp.float32(2), digits[0][:num_images])
    total = 2 * digits[0][:num_images].astype(np.float32).sum((1, 2, 3))
    np.testing.assert_allclose(got, np.stack([total, -total], 1), rtol=1e-6)
    indices = np.random.default_rng(0).permutation(num_images)[: num_images // 2]
    some = predict(jnp.float32(2), digits[0], indices)
    np.testing.assert_array_equal(some, got[indices])


def count(*arguments):
    return len(devices.choose_devices(*arguments))


def test_devices_chosen_divide_the_batch():
    assert count(0, 128, 8) == 4
    assert count(0, 24, 8) == 3, "a device gets so many images at least"
    assert count(0, 51, 8) == 3
    assert count(0, 97, 8) == 1
    assert count(0, 1, 8) == 1
    assert count(0, 6, 1) == 3
    assert count(2, 8, 8) == 2, "what was asked for is done"
    assert count(0) == 4


def test_on_cpu_small_models_stay_on_one_device():
    # 16 images are just short of the 2.3 million MACs that the all-reduce takes.
    assert devices.min_images_per_device(Work(143_749, 1000)) == 17
    assert devices.min_images_per_device(Work(10**9, 1000)) == 8, "eight at least"
    assert count(0, 64, 17) == 2
    assert count(0, 32, 17) == 1


def test_only_models_that_keep_much_per_image_take_microbatches():
    assert devices.microbatch_size(Work(101_632, 101_770)) is None
    assert devices.microbatch_size(Work(4_000_000, 34_826)) == 64


def test_on_accelerators_all_devices_get_part_of_the_whole_batch(monkeypatch):
    monkeypatch.setattr(devices, "_is_cpu", lambda: False)
    for work in (Work(7_840, 7_850), Work(4_000_000, 34_826)):
        assert devices.microbatch_size(work) is None
        assert count(0, 32, devices.min_images_per_device(work)) == 4


def test_images_are_large_for_what_memory_there_is(monkeypatch, tmp_path):
    limits = [tmp_path / "max", tmp_path / "limit", tmp_path / "missing"]
    limits[0].write_text("max\n")
    limits[1].write_text("800000000\n")
    monkeypatch.setattr(devices, "_MEMORY_LIMITS", limits)
    # Devices on CPU share what their host has.
    assert not devices.are_large(50_000_000, jax.devices()[:4])
    assert devices.are_large(50_000_001, jax.devices()[:4])
    assert not devices.are_large(200_000_000, jax.devices()[:1])
    limits[1].write_text("max\n")
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert not devices.are_large(physical // 4, jax.devices()[:1])
    assert devices.are_large(physical // 4 + 1, jax.devices()[:1])


def test_what_the_devices_cannot_do_is_refused():
    with pytest.raises(ConfigError, match="--num_devices=9: this machine has 4"):
        count(9, 90)
    with pytest.raises(ConfigError, match="--batch_size=9 .* give a multiple of 2"):
        count(2, 9)


def test_start_asks_for_one_cpu_device_per_core(monkeypatch):
    asked = []
    monkeypatch.setattr(jax.config, "update", lambda *setting: asked.append(setting))
    monkeypatch.setenv("XLA_FLAGS", "")
    devices.start()
    devices.start(3)
    assert [number for _, number in asked] == [len(os.sched_getaffinity(0)), 3]
    # What the user set counts.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=5")
    devices.start(3)
    assert len(asked) == 2


def test_start_makes_the_devices_that_it_asks_for():
    code = (
        "from mnist_jax.parallel import devices; "
        "devices.start(3); import jax; print(jax.device_count())"
    )
    process = start_python("-c", code, XLA_FLAGS="", JAX_PLATFORMS="cpu")
    [(_, output, errors)] = finish([process])
    assert output.strip() == "3", errors
