"""Adapters to the kernel: reads below a root, threads and their masks."""
