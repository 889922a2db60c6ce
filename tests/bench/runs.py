"""A run that nobody measured, with numbers that are easy to reckon with."""

from __future__ import annotations

from bench.results import Absence, CaseFacts, Measurement, Run

SECONDS = {
    "tf-eager": (0.4, 0.5, 0.6),
    "tf-function": (0.2, 0.2, 0.2),
    "flax": (0.1, 0.16, 0.2),
    "plain": (0.15, 0.15, 0.15),
    "fast": (0.08, 0.1, 0.12),
    "floor-numpy": (0.08, 0.08, 0.08),
    "floor-jax": (0.09, 0.09, 0.09),
}


def make_run(seconds=SECONDS, *, case="gradient/lstm/32x32x256", absences=True, compilations=None) -> Run:
    facts = [CaseFacts(case, "gradient", "LSTM(256) encoder-decoder", 32, 32, flops=10**9, took=12.5)]
    measurements = [
        Measurement(case, name, each, 2, 3.0, 1.0, 1.5, 2**20, "9 tensors in float32")
        for name, each in seconds.items()
    ]
    for time in (64, 256, 1024, 4096):
        name = f"sweep-T/lstm/{time}"
        facts.append(CaseFacts(name, "gradient", "LSTM(128) encoder-decoder", 16, time, "T", time))
        measurements.append(Measurement(name, "fast", (1e-3 * time**1.5,)))
    missed = (
        Absence(case, "tf-xla", "failed", "InvalidArgumentError: <no> | kernel"),
        Absence(case, "tf-session", "disagrees", "gradient/projection/bias: zero"),
        Absence(case, "cudnn", "absent", "cuDNN needs a GPU, and JAX found none"),
    )
    return Run(
        started="2026-11-23T02:00:00+00:00",
        took=60.5,
        selection="quick",
        seed=3,
        rounds=3,
        threads=2,
        machine={"processor": "a processor", "CPUs": "2", "python": "3.11.9"},
        versions={"jax": "0.4.34", "tensorflow": "2.15.1"},
        commit="0123456789abcdef+",
        cases=tuple(facts),
        measurements=tuple(measurements),
        absences=missed if absences else (),
        compilations=compilations,
    )
