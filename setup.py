"""Package metadata; `pip install -e .` makes `mnist_jax` importable."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r'__version__ = "(.+)"', (ROOT / "mnist_jax/__init__.py").read_text()
).group(1)

# jaxlib 0.10.2 miscalculates batched reductions on CPU (jax-ml/jax#39103).
JAX = ">=0.10.0,!=0.10.2"
TENSORBOARD = "tensorboardX>=2.6.2.2"
EXPORT = ["flatbuffers>=24.3.25", "safetensors>=0.4.3"]
ONNX = "onnx>=1.17"
SERVE = ["starlette>=1.10", "uvicorn>=0.34"]  # that starlette limits bodies itself

setup(
    name="mnist_jax",
    version=VERSION,
    description="Handwritten-digit recognition in JAX",
    license="Apache-2.0",
    packages=find_packages(include=["mnist_jax", "mnist_jax.*"]),
    package_data={"mnist_jax.serving": ["page/*"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.7.2",
        "filelock>=3.12",  # JAX's compilation cache needs it to evict
        "flax>=0.12.0",
        "importlib_resources>=6.4",  # tensorflow-datasets needs it, undeclared
        f"jax{JAX}",
        f"jaxlib{JAX}",
        "matplotlib>=3.9",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.31",
        "pillow>=11.0",
        "requests>=2.32.2",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "tensorflow-datasets>=4.9.10",
        "threadpoolctl>=3.5",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "onnxruntime>=1.20",
            "pytest>=8.2",
            "pytest-xdist>=3.6.1",
            "ruff>=0.9",
            *EXPORT,
            ONNX,
            TENSORBOARD,
            *SERVE,
        ],
        "serve": SERVE,
        "tensorboard": [TENSORBOARD],
        "export": EXPORT,
        "onnx": [ONNX],
        "cuda": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
    },
)
