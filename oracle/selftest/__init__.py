"""Proof by seeded faults: real ports, wrong on purpose, and right ones; what is said of each."""
