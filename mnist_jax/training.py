"""Training: a config and a folder in, a finished run in that folder out."""

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mnist_jax import (
    init_from,
    metrics,
    signals,
    snapshot,
    teacher,
    training_setup,
)
from mnist_jax.config import Config
from mnist_jax.divergence import check_loss, check_params, check_score
from mnist_jax.errors import EXPECTED
from mnist_jax.parallel import multihost
from mnist_jax.progress import Progress
from mnist_jax.result import conclude
from mnist_jax.signals import Interrupted
from mnist_jax.snapshot import Clock, Epochs
from mnist_jax.storage import records
from mnist_jax.storage.checkpoints import Checkpoints
from mnist_jax.storage.stored_config import Facts
from mnist_jax.storage.stored_run import check_others, complete_result, open_run
from mnist_jax.training_setup import Setup


def train_and_evaluate(
    config: Config,
    workdir: Path,
    overwrite: bool = False,
    on_epochs: Callable[[Epochs], None] = lambda epochs: None,
) -> dict[str, Any] | None:
    """Trains, or goes on training, and scores the test set once at the end.

    A run that has its result but lost metrics.jsonl or predictions.npz, or finds them
    damaged, goes on from its last checkpoint too, which makes both again.

    Of several processes all call this, and the main one alone reads and writes
    `workdir`.

    Args:
      config: the run's settings.
      workdir: the run's folder, see `storage/records.py`.
      overwrite: replace a run that `workdir` already holds.
      on_epochs: called with all lines of metrics.jsonl when training starts or goes on,
        and whenever there is a new one; not for a run that is complete.

    Returns:
      The content of result.json; None in processes other than the main one.

    Raises:
      UserError: settings, data, a device or the folder do not serve (nothing was
        changed), another process failed, or the loss is not finite.
      Interrupted: SIGINT or SIGTERM came; the run was saved.
    """
    with multihost.translate_lost_process(), contextlib.ExitStack() as held:
        result = None
        _in_main(lambda: check_others(config, workdir))
        start = _in_main(lambda: init_from.find(config, workdir, overwrite))
        if not overwrite:
            result = _in_main(lambda: _find_result(config, workdir, start))
        if any(multihost.all_max(result is not None)):
            return result
        with multihost.propagate_errors(EXPECTED):
            teachers = teacher.load(config)
            digest = teacher.sha256(teachers)
            setup = training_setup.prepare(
                config, lambda dataset: teacher.fit(teachers, config, dataset)
            )
        if multihost.is_multiprocess():
            multihost.check_same(training_setup.fingerprint(setup, digest))
        with signals.noted():  # a run is not left half removed
            opened = _in_main(
                lambda: _open(held, setup, workdir, overwrite, start, digest)
            )
        result, checkpoints, first_params = opened or (None, None, None)
        if any(multihost.all_max(result is not None)):
            return result
        held.enter_context(signals.advice(signals.usual_advice()))
        clock, epochs = _begin(setup, workdir, checkpoints, on_epochs, first_params)
        with signals.noted() as received:
            clock = _fit(setup, workdir, checkpoints, on_epochs, clock, epochs)
            params = setup.trainer.state.eval_params
            result = _in_main(
                lambda: conclude(setup, workdir, params, clock.compile, clock.train)
            )
            # One that came too late to save anything still ends the program.
            [stop] = multihost.all_max(received())
            if stop:
                name = signal.Signals(stop).name
                raise Interrupted(f"stopped by {name}; {workdir} is complete", stop)
        return result


def _in_main(function: Callable[[], Any]) -> Any:
    """What `function` gives in the main process; where it fails, all fail."""
    with multihost.propagate_errors(EXPECTED):
        return function() if multihost.is_main_process() else None


def _find_result(
    config: Config, workdir: Path, start: init_from.Start
) -> dict[str, Any] | None:
    """`complete_result`, where it is known which other runs this one needs."""
    teacher_sha256 = teacher.find_sha256(config, workdir)
    others = Facts(init_from_sha256=start.sha256, teacher_sha256=teacher_sha256)
    return complete_result(config, workdir, others)


def _open(
    held: contextlib.ExitStack,
    setup: Setup,
    workdir: Path,
    overwrite: bool,
    start: init_from.Start,
    teacher_sha256: str | None,
) -> tuple[dict[str, Any] | None, Checkpoints | None, Any]:
    """`open_run`, and the params of the first step, see `init_from.fit`."""
    facts, params = init_from.fit(start, setup)
    facts = facts._replace(teacher_sha256=teacher_sha256)
    sha256 = setup.dataset.sha256
    return *open_run(held, setup.config, workdir, sha256, overwrite, facts), params


def _begin(
    setup: Setup,
    workdir: Path,
    checkpoints: Checkpoints | None,
    on_epochs: Callable[[Epochs], None],
    first_params: Any,
) -> tuple[Clock, Epochs]:
    """Goes back to the last checkpoint, if there is one, and compiles."""
    trainer = setup.trainer
    clock, epochs = snapshot.restore(trainer, checkpoints, first_params)
    with multihost.propagate_errors(EXPECTED):
        if checkpoints is not None:
            # Those after the checkpoint are made again.
            records.write_metrics(workdir, epochs)
            on_epochs(epochs)
    epoch = int(trainer.state.step) // trainer.num_steps
    if epoch == setup.config.epochs:
        return clock, epochs  # there is nothing left to train
    trainer.start_epoch(epoch)
    seconds = signals.interruptible(lambda: training_setup.compile_programs(setup))
    return clock._replace(compile=clock.compile + seconds), epochs


def _fit(
    setup: Setup,
    workdir: Path,
    checkpoints: Checkpoints | None,
    on_epochs: Callable[[Epochs], None],
    clock: Clock,
    epochs: Epochs,
) -> Clock:
    """Trains to the last epoch; see `train_and_evaluate`.

    Args:
      setup: what to train.
      workdir: the run's folder.
      checkpoints: None in processes other than the main one, which write nothing.
      on_epochs: called in the main process alone.
      clock, epochs: until now; `epochs` is added to.
    """
    config, trainer = setup.config, setup.trainer
    num_steps, batch_size = trainer.num_steps, config.batch_size
    total, done = config.epochs * num_steps, int(trainer.state.step)
    writes = checkpoints is not None
    saved = time.monotonic()
    bar = Progress(
        config.epochs, num_steps * batch_size, done * batch_size, is_silent=not writes
    )
    with bar as progress, signals.noted() as received:
        while done < total:
            epoch, first = divmod(done, num_steps)
            if first == 0:
                trainer.start_epoch(epoch)
            last = min(num_steps, first + trainer.chunk_steps)
            seconds = trainer.run(first, last)
            history = trainer.metrics()
            clock = clock.add(seconds)
            check_loss(history["loss"][first:last], done, config)
            done += last - first
            if last == num_steps:
                check_params(trainer.state.params, config)
            progress.update(
                (last - first) * batch_size,
                history["loss"][first:last].mean(),
                history["accuracy"][first:last].mean(),
            )
            # Processes that did not do the same chunks would wait for ever.
            stop, trainer.chunk_steps = multihost.all_max(
                received(), trainer.chunk_steps
            )
            is_due = time.monotonic() - saved >= config.checkpoint_every
            with multihost.propagate_errors(EXPECTED):
                if writes and last == num_steps:
                    epochs.append(_measure(setup, history, done, clock.epoch))
                    records.write_metrics(workdir, epochs)
                    on_epochs(epochs)
                    progress.end_epoch(epochs[-1])
                if last == num_steps:
                    clock = clock._replace(epoch=0.0)
                if writes and (is_due or stop or done == total):
                    snapshot.save(trainer, checkpoints, clock, epochs)
                    saved = time.monotonic()
            if stop and done < total:
                raise Interrupted(
                    f"stopped by {signal.Signals(stop).name} after step {done} of "
                    f"{total}; the run is saved in {workdir}",
                    stop,
                )
    return clock


def _measure(
    setup: Setup, history: dict[str, np.ndarray], done: int, seconds: float
) -> dict[str, Any]:
    """One line of metrics.jsonl; the training part is the mean over its batches."""
    num_steps, indices = setup.trainer.num_steps, setup.validation_indices
    scores = dict.fromkeys(metrics.EPOCH_METRICS)
    if len(indices):
        dataset = setup.dataset
        logits = setup.predict(
            setup.trainer.state.eval_params, dataset.train_images, indices
        )
        scores = metrics.score(logits, dataset.train_labels[indices])
        check_score(scores["loss"], "validation", setup.config)
    names = ("loss", *metrics.STEP_METRICS)
    means = {name: float(history[name].mean(dtype=np.float64)) for name in names}
    return {
        "epoch": done // num_steps,
        # A metric that is new to a run that went on is known from its next epoch on.
        **{f"train_{k}": x if np.isfinite(x) else None for k, x in means.items()},
        **{f"validation_{name}": value for name, value in scores.items()},
        "learning_rate": float(setup.schedule(done - 1)),
        "seconds": seconds,
        "images_per_second": num_steps * setup.config.batch_size / seconds,
    }
