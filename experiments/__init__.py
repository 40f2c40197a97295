"""Studies of accuracy and speed; run as python -m experiments.<shelf>.<study>."""

import sys

from mnist_jax import signals, streams

if sys.argv[0] == "-m":  # as long as Python looks for the study that it is to run
    streams.open_closed()  # before what takes a second to import
    signals.listen()
