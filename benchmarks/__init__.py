"""Measurements, run by `make bench`: medians, as ratios against a baseline of the same run."""
