"""Classifies images by the model that lies beside this file.

  python run.py                  checks the files and what the model computes
  python run.py a.npy b.npy      then prints the class of each image

Needs jax, flatbuffers and numpy alone. A .npy file has images uint8 [N, H, W, 1], light
strokes on black, of the height and width that the model was trained on.
"""

import hashlib
import sys
from pathlib import Path

try:
    import flatbuffers  # noqa: F401  jax.export reads by it
    import jax.export
    import numpy as np
except ImportError as error:
    sys.exit(f"error: {error}: pip install jax flatbuffers")

NAMES = ("check.npz", "model.onnx", "model.safetensors", "model.stablehlo", "run.py")
SUMS = "SHA256SUMS"
TOLERANCE = 1e-4  # of the largest logit
BATCH_SIZE = 500


def sums(folder):
    """The lines of SHA256SUMS, by the name of the file."""
    paths = [folder / name for name in NAMES if (folder / name).exists()]
    digests = {path.name: hashlib.sha256(path.read_bytes()) for path in paths}
    return {name: f"{one.hexdigest()}  {name}\n" for name, one in digests.items()}


def check_sums(folder):
    """Raises ValueError unless the files are there as they were written."""
    lines, expected = sums(folder), (folder / SUMS).read_bytes()
    if "".join(lines.values()).encode() != expected:
        wrong = [name for name, line in lines.items() if line.encode() not in expected]
        name = wrong[0] if wrong else f"{SUMS}, or a file that it names,"
        raise ValueError(f"{folder}: {name} is not as it was written: export again")


def check_logits(logits, expected):
    """Raises ValueError unless float32 [N, K] are the same but for rounding."""
    difference = np.abs(logits - expected).max() / np.abs(expected).max()
    is_close = difference <= TOLERANCE  # False of NaN
    if not is_close or (logits.argmax(-1) != expected.argmax(-1)).any():
        raise ValueError(
            f"logits differ from the run's by {difference:.0e} of the largest"
        )


def load(folder):
    """The checked model, uint8 [b, H, W, 1] -> float32 [b, K]; (H, W, 1); K names."""
    check_sums(folder)
    with np.load(folder / "check.npz") as arrays:
        images, logits, names = (arrays[x] for x in ("images", "logits", "class_names"))
    content = bytearray((folder / "model.stablehlo").read_bytes())
    model = jax.jit(jax.export.deserialize(content).call)
    check_logits(np.asarray(model(images)), logits)
    return model, images.shape[1:], names


def classify(model, path, shape):
    """Class numbers of the images in a file, int [N]."""
    images = np.load(path)
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        expected = f"uint8 [N, {', '.join(map(str, shape))}]"
        raise ValueError(
            f"{path}: {images.dtype} {list(images.shape)}, expected {expected}"
        )
    starts = range(0, len(images), BATCH_SIZE)
    logits = [np.asarray(model(images[i : i + BATCH_SIZE])) for i in starts]
    return np.concatenate(logits).argmax(-1)


def main(paths):
    folder = Path(__file__).resolve().parent
    try:
        model, shape, names = load(folder)
        print(f"{folder}: all files are whole, and logits are the run's")
        for path in paths:
            for i, number in enumerate(classify(model, path, shape)):
                print(f"{path} {i}: {names[number]}")
    except Exception as error:  # JAX and NumPy have many
        line = str(error).partition("\n")[0]
        sys.exit(f"error: {line or type(error).__name__}")


if __name__ == "__main__":
    main(sys.argv[1:])
