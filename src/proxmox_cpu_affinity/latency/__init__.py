"""Measuring: the C program, the schedule of pairs, the prediction, the cache."""
