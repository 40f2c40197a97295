"""What is benchmarked: the models by name, their batches and their arithmetic."""

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
    """Operations in matrix products that one training step needs for one image.

    A multiply-add counts as 2. Each layer has one product forward, one for the
    gradient to its weights and, where something to be trained lies below, one for
    the gradient to its input: 3 in all, or 2 where the input is the image. A
    convolution counts as the product of its patches with its kernel. What is not a
    product (activations, pooling, softmax, Adam) is left out, so that this over a
    machine's rate of products is a time that no program can be faster than, unless
    it does the convolution in another way.

    Args:
      model: a name in `BATCH_SIZES`.
    """
    if model == "linear":
        return _product(784, NUM_CLASSES, 2)
    if model == "mlp":
        return _product(784, HIDDEN, 2) + _product(HIDDEN, NUM_CLASSES, 3)
    if model == "cnn":
        first = 26 * 26 * _product(3 * 3 * 1, 32, 2)
        # Of the 13 x 13 pooled pixels, 11 x 11 are the middle of a patch.
        second = 11 * 11 * _product(3 * 3 * 32, 64, 3)
        return first + second + _product(5 * 5 * 64, NUM_CLASSES, 3)
    width = GATES[model] * UNITS
    row = _product(28, width, 2) + _product(UNITS, width, 3)
    return 28 * row + _product(UNITS, NUM_CLASSES, 3)


def _product(inputs: int, outputs: int, num_products: int) -> int:
    return 2 * inputs * outputs * num_products
