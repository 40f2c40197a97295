"""The settings that every run has, one line each; models declare their own."""

import dataclasses

from mnist_jax import augment, data, images, models, optim
from mnist_jax.settings import setting

PRESET_NAMES = ("default", "quick", "fast", "best")


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """What every run has."""

    model: str = setting(help="what to train", choices=lambda: models.MODELS)
    dataset: str = setting(
        help="auto is mnist or, where that cannot be had, scikit-learn's digits; "
        "folder is one's own images",
        choices=lambda: data.NAMES,
    )
    preset: str = setting(
        "default",
        "where settings that are not given come from: quick has a fifth of the epochs; "
        "for 60,000 images: fast, of cnn, is 99% on MNIST in the least time, best the "
        "most accurate within an hour",
        choices=PRESET_NAMES,
    )
    data_dir: str | None = setting(
        None,
        "folder of prepared data sets (TFDS_DATA_DIR, else ~/tensorflow_datasets)",
        is_identity=False,
    )
    raw_dir: str | None = setting(
        None,
        "folder of the data set's four IDX files, gzipped or not (for mnist: "
        "MNIST_RAW_DIR); of folder: with a sub-folder of image files for each class",
        is_identity=False,
    )
    preprocess: str = setting(
        "strokes",
        "of folder: strokes are found and brought to MNIST's form; resize keeps the "
        "whole picture, for what is no drawing",
        choices=lambda: images.READERS,
    )
    # Which weights these are is part of the run, as `records.Facts` keep their digest.
    init_from: str | None = setting(
        None,
        "folder of another run of the same model, whose weights to start from; for "
        "another number of classes the last layer is new",
        is_identity=False,
    )
    # As of init_from.
    teacher: str | None = setting(
        None,
        "folders of runs on the same data, with commas, whose probabilities to learn "
        "beside the labels (knowledge distillation)",
        is_identity=False,
    )
    distill_weight: float = setting(
        0.5, "weight of the distillation loss; the labels have the rest", low=0, high=1
    )
    temperature: float = setting(
        2.0, "of distillation: what logits are divided by", low=0.01, high=1_000
    )
    # JAX's keys drop what is above 32 bits.
    seed: int = setting(0, "random seed", low=0, high=2**32 - 1)
    # Beyond some of these bounds a run would not fail, but never end or use up the
    # machine.
    epochs: int = setting(10, "passes over the training images", low=1, high=1_000_000)
    batch_size: int = setting(128, "images per step, over all devices", low=1)
    optimizer: str = setting(
        "adam",
        "update rule; sgd has momentum 0.9, soap is for at most 2,048 parameters",
        choices=lambda: optim.OPTIMIZERS,
    )
    # To float32, what is outside of these is 0 or infinite.
    learning_rate: float = setting(
        1e-3, "peak learning rate of the schedule", low=1e-37, high=1e38
    )
    schedule: str = setting(
        "constant", "learning rate over the run", choices=lambda: optim.SCHEDULES
    )
    weight_decay: float = setting(
        0.0, "on kernels; decoupled with adamw and soap, else L2", low=0, high=1e38
    )
    clip_norm: float = setting(
        0.0, "global norm that gradients are clipped to; 0 for none", low=0, high=1e38
    )
    label_smoothing: float = setting(
        0.0, "share of each target spread over all classes", low=0, below=1
    )
    augment: str = setting(
        "none",
        "random changes to training images: shift by 2 pixels; affine also rotates by "
        "10 degrees, scales and shears by 10%; elastic also bends",
        choices=lambda: augment.AUGMENTATIONS,
    )
    affine_strength: float = setting(
        1.0, "of affine and elastic: factor on angles, scales and shears", low=0, high=9
    )
    affine_shift: float = setting(
        2.0, "of affine and elastic: largest shift, pixels", low=0, high=14
    )
    elastic_pixels: float = setting(
        1.0,
        "of elastic: root mean square of its displacements, in pixels of 28 rows",
        low=0,
        high=9,
    )
    nearest_fraction: float = setting(
        0.0,
        "of affine and elastic: share of the images read at the nearest pixels, which "
        "keeps them sharp; the others are bilinear",
        low=0,
        high=1,
    )
    ema_decay: float = setting(
        0.0,
        "per step, of the moving average of the weights that is evaluated; 0 for none",
        low=0,
        below=1,
    )
    precision: str = setting(
        "float32",
        "operands of matmuls and convolutions; sums, params and the update are float32",
        choices=("float32", "bfloat16"),
    )
    eval_views: int = setting(
        1,
        "test-time augmentation: probabilities are averaged over the image and up to 8 "
        "copies shifted by a pixel",
        low=1,
        high=9,
    )
    validation_fraction: float = setting(
        0.1, "fraction of the training images held out", low=0, below=1
    )
    validation_fold: int | None = setting(
        None,
        "which fold of that size is held out, from 0, whatever the seed; by default "
        "the seed draws one",
        low=0,
        high=999,
    )
    validation_by: str = setting(
        "image",
        "how folds are drawn: image, stratified by class; block, of consecutive "
        "images, which in MNIST are of the same writers",
        choices=("image", "block"),
    )
    num_devices: int = setting(
        0,
        "devices to share each batch, 0 for all that it can use",
        low=0,
        high=1_024,
        is_identity=False,
    )
    data_placement: str = setting(
        "auto",
        "where the training images are: all on each device, or in the host's memory "
        "and sent as they are needed, with the same result; auto is host where they "
        "would take more than a quarter of a device's memory",
        choices=("auto", "device", "host"),
        is_identity=False,
    )
    checkpoint_every: int = setting(
        30, "seconds of training between saves", low=0, is_identity=False
    )
