"""The benchmark suite: ratios measured side by side in one run."""
