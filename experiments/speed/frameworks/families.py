"""What is benchmarked: the models by name, their batches and their FLOPs."""

BATCH_SIZES = {
    "linear": 32,
    "mlp": 32,
    "cnn": 128,
    "rnn": 128,
    "lstm": 128,
    "gru": 128,
}
LEARNING_RATE = 1e-3
HIDDEN = 128  # of the mlp
UNITS = 128  # of the recurrent models
NUM_CLASSES = 10
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def flops_per_image(model: str) -> int:
    """FLOPs in the matmuls of one training step for one image.

    A multiply-accumulate counts as 2. Each layer has one matmul forward, one for the
    gradient of its weights and, where something to be trained lies below, one for the
    gradient of its input: 3, or 2 where the input is the image. A convolution counts as
    the matmul of its patches with its kernel. All else (activations, pooling, softmax,
    Adam) is left out: so this over the machine's matmul rate is a time that no program
    beats, unless it needs fewer FLOPs, as Winograd's convolution does.

    Args:
      model: a name in `BATCH_SIZES`.
    """
    if model == "linear":
        return _matmul_flops(784, NUM_CLASSES, 2)
    if model == "mlp":
        return _matmul_flops(784, HIDDEN, 2) + _matmul_flops(HIDDEN, NUM_CLASSES, 3)
    if model == "cnn":
        first = 26 * 26 * _matmul_flops(3 * 3 * 1, 32, 2)
        # Of the 13 x 13 pooled pixels, 11 x 11 are the middle of a patch.
        second = 11 * 11 * _matmul_flops(3 * 3 * 32, 64, 3)
        return first + second + _matmul_flops(5 * 5 * 64, NUM_CLASSES, 3)
    width = GATES[model] * UNITS
    time_step = _matmul_flops(28, width, 2) + _matmul_flops(UNITS, width, 3)
    return 28 * time_step + _matmul_flops(UNITS, NUM_CLASSES, 3)


def _matmul_flops(inputs: int, outputs: int, num_matmuls: int) -> int:
    return 2 * inputs * outputs * num_matmuls
