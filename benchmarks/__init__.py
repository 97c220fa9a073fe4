"""Benchmarks: ours and the rival interleaved in one run, outputs verified, medians and ratios reported."""
