"""Studies of accuracy and speed; run as python -m experiments.<shelf>.<study>."""
