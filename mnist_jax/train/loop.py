"""The only training loop, and what it saves."""

import concurrent.futures
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_jax import compilation_cache, metrics, parallel, records, step
from mnist_jax.checkpoints import CheckpointError, Checkpoints
from mnist_jax.config import Config
from mnist_jax.progress import Progress
from mnist_jax.train.run import Run, epoch_order

WRITE_ERRORS = (CheckpointError, records.RecordsError, OSError)
CHUNK_SECONDS = 1.0  # of training between two looks at signals, clock and bar
_FIRST_CHUNK = 8  # steps, to learn how long one takes


class TrainingError(Exception):
    """Training cannot go on; the message is one line with the likely cause."""


class Interrupted(BaseException):
    """A signal stopped the run after it was saved; see `signal_number`.

    Like KeyboardInterrupt no Exception: what it passes must not take it for an error.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class Clock(NamedTuple):
    """Seconds so far, over all starts of the run."""

    compile: float = 0.0
    train: float = 0.0
    epoch: float = 0.0  # those of the epoch in progress

    def add(self, seconds: float) -> "Clock":
        return self._replace(train=self.train + seconds, epoch=self.epoch + seconds)


class Snapshot(NamedTuple):
    """All that a checkpoint holds: with the config it decides the run's future."""

    state: step.TrainState
    history: step.Metrics  # float32 [S], of the epoch in progress
    clock: Clock


def fit(
    run: Run,
    workdir: Path,
    checkpoints: Checkpoints | None,
    on_epochs: Callable[[list[dict[str, Any]]], None],
) -> tuple[Any, Clock]:
    """Trains to the last epoch, from the last checkpoint if there is one.

    Args:
      run: what to train.
      workdir: the run's folder.
      checkpoints: None in processes other than the first, which write nothing.
      on_epochs: see `train_and_evaluate`; called in the first process alone.

    Returns:
      (params, clock) at the end.

    Raises:
      CheckpointError, RecordsError, TrainingError, Interrupted: see
        `train_and_evaluate`.
    """
    config, num_steps = run.config, run.num_steps
    total = config.epochs * num_steps
    writes = checkpoints is not None
    (state, history, clock), epochs = _restore(run, checkpoints)
    done = int(state.step)
    if writes:
        # Those after the checkpoint are made again.
        records.write_metrics(workdir, epochs)
        on_epochs(epochs)
    data = run.dataset.train_images, run.dataset.train_labels, np.uint32(config.seed)
    state, history, data = parallel.replicate((state, history, data), run.devices)
    order = _order(run, done // num_steps)
    began = time.perf_counter()
    state, history = _compile(run, state, history, data, order)
    clock = clock._replace(compile=clock.compile + time.perf_counter() - began)

    chunk_steps, num_chunks = _FIRST_CHUNK, 0
    bar = Progress(config, num_steps, done, is_silent=not writes)
    with bar as progress, _Signals() as signals:
        while done < total:
            epoch, first = divmod(done, num_steps)
            if first == 0:
                order = _order(run, epoch)
            last = min(num_steps, first + chunk_steps)
            began = time.perf_counter()
            state, history = run.chunk(state, history, *data, order, first, last)
            steps = jax.device_get(history)  # waits for the chunk
            seconds = time.perf_counter() - began

            _check_finite(steps.loss[first:last], done, config)
            clock = clock.add(seconds)
            num_chunks += 1
            done += last - first
            progress.update(
                last - first,
                steps.loss[first:last].mean(),
                steps.accuracy[first:last].mean(),
            )
            # Processes that did not do the same chunks would wait for ever.
            stop, chunk_steps = parallel.agree(
                signals.received, next_chunk(last - first, seconds)
            )
            is_due = stop or done == total or num_chunks % config.checkpoint_every == 0
            with parallel.together(WRITE_ERRORS):
                if writes and last == num_steps:
                    epochs.append(_measure(run, state.params, steps, done, clock.epoch))
                    records.write_metrics(workdir, epochs)
                    on_epochs(epochs)
                    progress.end_epoch(epochs[-1])
                if last == num_steps:
                    clock = clock._replace(epoch=0.0)
                if writes and is_due:
                    _save(checkpoints, Snapshot(state, history, clock), epochs)
            if stop and done < total:
                name = signal.Signals(stop).name
                raise Interrupted(
                    f"stopped by {name} after step {done} of {total}; the run is saved "
                    f"in {workdir}",
                    stop,
                )
    return state.params, clock


def next_chunk(num_steps: int, seconds: float) -> int:
    """Steps that take `CHUNK_SECONDS`, if so many took so long."""
    return max(1, round(CHUNK_SECONDS * num_steps / seconds))


def _order(run: Run, epoch: int) -> np.ndarray:
    order = epoch_order(run.train_rows, run.config.batch_size, run.config.seed, epoch)
    parts = parallel.split_order(order, len(run.devices))
    return parallel.own_part(parts, run.devices)


def _restore(
    run: Run, checkpoints: Checkpoints | None
) -> tuple[Snapshot, list[dict[str, Any]]]:
    """The last checkpoint, or the start of a new run, and the epochs until then."""
    # Two arrays: both are donated to the program, and each buffer only once.
    history = step.Metrics(*np.zeros((2, run.num_steps), np.float32))
    snapshot, epochs = Snapshot(run.state, history, Clock()), []
    with parallel.together(WRITE_ERRORS):
        if checkpoints is not None and checkpoints.latest_step() is not None:
            params, training, epochs = checkpoints.restore(
                run.state.params, training_tree(snapshot)
            )
            snapshot = Snapshot(
                step.TrainState(training["step"], params, training["opt_state"]),
                step.Metrics(**training["history"]),
                Clock(**training["clock"]),
            )
    state, history, clock = parallel.share(snapshot)
    return Snapshot(state, history, Clock(*map(float, clock))), epochs


def _save(
    checkpoints: Checkpoints, snapshot: Snapshot, epochs: list[dict[str, Any]]
) -> None:
    state = snapshot.state
    checkpoints.save(int(state.step), state.params, training_tree(snapshot), epochs)


def training_tree(snapshot: Snapshot) -> dict[str, Any]:
    """All but the params, as trees that orbax knows."""
    return {
        "step": snapshot.state.step,
        "opt_state": snapshot.state.opt_state,
        "history": snapshot.history._asdict(),
        "clock": snapshot.clock._asdict(),
    }


def _compile(run: Run, state, history, data, order):
    """Runs both programs on nothing, so that no later time includes compilation."""
    images = run.dataset.train_images[:1]
    # The chunk is given the state's own arrays, so prediction needs others.
    params = parallel.replicate(run.state.params, run.devices)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        predicted = pool.submit(run.predict, params, images)
        done = jax.block_until_ready(run.chunk(state, history, *data, order, 0, 0))
        predicted.result()
    compilation_cache.seal()
    return done


def _check_finite(losses: np.ndarray, done: int, config: Config) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise TrainingError(
            f"the loss is {losses[bad[0]]} at step {done + bad[0] + 1}: most likely "
            f"the learning rate is too high; lower --learning_rate (now "
            f"{config.learning_rate:g}) or set --clip_norm (now {config.clip_norm:g}), "
            "and train again with --overwrite"
        )


def _measure(run: Run, params, steps, done: int, seconds: float) -> dict[str, Any]:
    """One line of metrics.jsonl; the training part is the mean over its batches."""
    rows = run.validation_rows
    loss = accuracy = None
    if len(rows):
        logits = run.predict(params, run.dataset.train_images[rows])
        loss, accuracy = metrics.score(logits, run.dataset.train_labels[rows])
    return {
        "epoch": done // run.num_steps,
        "train_loss": float(steps.loss.mean(dtype=np.float64)),
        "train_accuracy": float(steps.accuracy.mean(dtype=np.float64)),
        "validation_loss": loss,
        "validation_accuracy": accuracy,
        "learning_rate": float(run.schedule(done - 1)),
        "seconds": seconds,
        "images_per_second": run.num_steps * run.config.batch_size / seconds,
    }


class _Signals:
    """Notes SIGINT and SIGTERM instead of dying; a second SIGINT is not caught."""

    def __init__(self):
        self.received = 0  # its number
        self._before: dict = {}

    def __enter__(self) -> "_Signals":
        # Python allows handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
