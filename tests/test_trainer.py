"""The driver of compiled chunks; `test_vectorized.py` has members against solo runs."""

import jax
import numpy as np
import optax
import pytest
from runs_of_launch import assert_same_bits

from mnist_jax import augment, data, trainer
from mnist_jax.models import make_model
from mnist_jax.parallel import feed, programs
from mnist_jax.train_step import init_state, make_train_step
from mnist_jax.trainer import Trainer

NUM_STEPS, BATCH_SIZE, SEED = 10, 24, 7
MODELS = {
    "mlp": dict(hidden_sizes=(32,), dropout=0.3),
    "cnn": dict(dropout=0.5),
    "gru": dict(units=16, dropout=0.2),
}


@pytest.fixture(scope="module")
def digits(data_dir):
    dataset = data.load("digits", data_dir)
    return dataset.train_images[:256], dataset.train_labels[:256]


def order(epoch):
    shuffled = np.random.default_rng(epoch).permutation(256)[: NUM_STEPS * BATCH_SIZE]
    return shuffled.reshape(NUM_STEPS, BATCH_SIZE).astype(np.int32)


def make(digits, name="mlp", num_devices=2, **settings):
    model = make_model(name, 10, **MODELS[name])
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    step = make_train_step(
        model,
        optimizer,
        augmentation=augment.AUGMENTATIONS["shift"],
        label_smoothing=0.1,
        average=programs.average,
    )
    state = jax.device_get(init_state(model, optimizer, SEED, digits[0].shape[1:]))
    return Trainer(
        make_step=lambda hparams: step,
        state=state,
        hparams={"seed": np.uint32(SEED)},
        images=digits[0],
        labels=digits[1],
        order=order,
        num_steps=NUM_STEPS,
        devices=jax.devices()[:num_devices],
        **settings,
    )


def make_members(digits, num_members, num_devices):
    """Members whose learning rates and seeds differ."""
    model = make_model("mlp", 10, **MODELS["mlp"])
    optimizer = lambda rate: optax.sgd(rate)  # noqa: E731
    state = init_state(model, optimizer(0.1), SEED, digits[0].shape[1:])
    return Trainer(
        make_step=lambda swept: make_train_step(model, optimizer(swept["rate"])),
        state=jax.tree.map(lambda x: np.stack([x] * num_members), state),
        hparams={
            "seed": np.arange(num_members, dtype=np.uint32),
            "rate": np.linspace(0, 0.1, num_members, dtype=np.float32),
        },
        images=digits[0],
        labels=digits[1],
        order=lambda epoch: np.stack([order(epoch)] * num_members),
        num_steps=NUM_STEPS,
        devices=jax.devices()[:num_devices],
        num_members=num_members,
    )


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        pytest.param("cnn", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
    ],
)
def test_chunk_lengths_do_not_change_a_bit(digits, name):
    driver = make(digits, name)
    first = driver.fetch_state()
    driver.run(0, NUM_STEPS)
    whole = driver.fetch_state(), driver.metrics()
    assert whole[0].step == NUM_STEPS
    assert len(set(whole[1]["loss"])) == NUM_STEPS, "losses differ step by step"
    driver.set_state(first)
    for start, stop in ((0, 1), (1, 5), (5, 5), (5, 7), (7, 10)):
        driver.run(start, stop)
    assert_same_bits(whole, (driver.fetch_state(), driver.metrics()))


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        pytest.param("cnn", marks=pytest.mark.slow),
        pytest.param("gru", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("num_devices", [1, 2])
def test_images_on_the_host_train_to_the_same_bits(
    digits, name, num_devices, monkeypatch
):
    resident = make(digits, name, num_devices)
    # Blocks of 4 steps: the last of an epoch has 2 of its own.
    monkeypatch.setattr(feed, "BLOCK_BYTES", 4 * BATCH_SIZE * digits[0][:1].nbytes)
    fed = make(digits, name, num_devices, host_images=True)
    for epoch in (0, 1):
        assert_same_bits(resident.run_epoch(epoch), fed.run_epoch(epoch))
    assert_same_bits(resident.fetch_state(), fed.fetch_state())
    # From the middle of an epoch, back in it, and in another.
    for epoch, first, last in ((1, 5, 7), (1, 3, 9), (4, 9, 10), (4, 0, 0), (4, 0, 3)):
        for driver in (resident, fed):
            driver.start_epoch(epoch)
            driver.run(first, last)
    assert_same_bits(resident.fetch_state(), fed.fetch_state())
    assert_same_bits(resident.metrics(), fed.metrics())


def test_compiling_changes_nothing(digits):
    driver = make(digits)
    first = driver.fetch_state()
    assert driver.compile() > 0
    assert_same_bits(driver.fetch_state(), first)
    assert not any(x.any() for x in driver.metrics().values())
    assert driver.chunk_steps == 8, "the length of a chunk is not learned from none"


def test_a_run_goes_on_from_a_fetched_state(digits):
    driver, other = make(digits), make(digits)
    driver.start_epoch(3)
    driver.run(0, 4)
    state, history = driver.fetch_state(), driver.metrics()
    driver.run(4, NUM_STEPS)
    other.set_state(state, history)
    other.start_epoch(3)
    other.run(4, NUM_STEPS)
    assert_same_bits(
        (driver.fetch_state(), driver.metrics()), (other.fetch_state(), other.metrics())
    )


def test_epochs_have_their_own_orders_in_chunks_of_about_a_second(digits, monkeypatch):
    driver, other = make(digits), make(digits)
    seen, run = [], driver.run
    monkeypatch.setattr(driver, "run", lambda *part: seen.append(part) or run(*part))
    # No chunk is shorter than a step.
    monkeypatch.setattr(trainer, "CHUNK_SECONDS", 0.0)
    histories = [driver.run_epoch(epoch) for epoch in (0, 1)]
    # The first epoch is preceded by what compiles.
    chunks = [(0, 0), (0, 8), (8, 9), (9, 10)]
    assert seen == chunks + [(i, i + 1) for i in range(10)]
    for epoch, history in enumerate(histories):
        other.start_epoch(epoch)
        other.run(0, NUM_STEPS)
        assert_same_bits(history, other.metrics())
    assert driver.fetch_state().step == 2 * NUM_STEPS
    assert histories[0]["loss"][0] != histories[1]["loss"][0]

    monkeypatch.setattr(trainer, "CHUNK_SECONDS", 2.5)
    steps_per_second = 4 / driver.run(0, 4)
    assert driver.chunk_steps == pytest.approx(2.5 * steps_per_second, rel=0.1, abs=1)


def test_one_device_and_several_agree(digits):
    one, four = (make(digits, num_devices=count) for count in (1, 4))
    losses = one.run_epoch(0)["loss"]
    np.testing.assert_allclose(four.run_epoch(0)["loss"], losses, atol=1e-5)
    for leaf in jax.tree.leaves(four.state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4
        assert len({shard.tobytes() for shard in shards}) == 1


@pytest.mark.slow
def test_members_train_alike_on_any_number_of_devices(digits):
    three, one = make_members(digits, 3, 2), make_members(digits, 3, 1)
    first = three.fetch_state()
    histories = [driver.run_epoch(0) for driver in (three, one)]
    for history in histories:
        assert history["loss"].shape == (3, NUM_STEPS)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-5)
    state = three.fetch_state()
    assert state.step.tolist() == [NUM_STEPS] * 3
    kernels, before = (x.params["Dense_0"]["kernel"] for x in (state, first))
    changed = [not np.array_equal(kernels[i], before[i]) for i in range(3)]
    assert changed == [False, True, True], "the first one's rate is 0"
    assert not np.array_equal(kernels[1], kernels[2])

    # An epoch's history starts anew, and any state can be put back.
    three.set_state(state)
    assert_same_bits(three.fetch_state(), state)
    assert not three.metrics()["loss"].any()


@pytest.mark.parametrize("host_images", [False, True])
def test_memory_is_told_and_costs_no_state(digits, host_images):
    batch_bytes = BATCH_SIZE * digits[0][0].size * np.dtype(np.float32).itemsize
    trainer = make(digits, host_images=host_images)
    before = trainer.fetch_state()
    # On each of two devices half of the images, and some arrays like them.
    assert batch_bytes / 2 <= trainer.temporary_bytes() < 100 * batch_bytes
    assert_same_bits(trainer.fetch_state(), before)
    assert np.isfinite(trainer.run_epoch(0)["loss"]).all()
