"""Devices: the only folder that names devices, pmap or processes."""
