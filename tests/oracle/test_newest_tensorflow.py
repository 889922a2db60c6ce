"""What must work with every TensorFlow, the newest too, which has no tfa: the TF1 original."""

from __future__ import annotations

import pytest

from oracle import zoo
from oracle.bridge.checkpoints import read_checkpoint
from oracle.bridge.mapping import read_weights
from oracle.bridge.sites import find_sites
from oracle.compare import compare_records
from oracle.errors import MissingPackageError
from oracle.frameworks import installed_version
from oracle.run_jax import run_oracle
from oracle.run_tf import run_port
from tests.oracle.cases import small_case

pytestmark = [pytest.mark.tf_any, pytest.mark.jax]


@pytest.mark.parametrize("port", ["dynamic_rnn/full", "dynamic_rnn/lengths"])
@pytest.mark.parametrize("mode", ["v1", "function"])
def test_the_original_matches(port: str, mode: str) -> None:
    case = small_case(port, seed=5)
    record = run_port(case, model=port, mode=mode)
    assert record.failure is None, record.failure.traceback
    comparison = compare_records(record, run_oracle(case, model=port))
    assert comparison.matches, comparison.findings


def test_the_trained_checkpoint_reads() -> None:
    checkpoint = read_checkpoint(zoo.TRAINED_WEIGHTS)
    (choice,) = zoo.choose("dynamic_rnn/full")
    weights = read_weights(
        find_sites(choice.variant.spec, "tf1"), checkpoint.variables, where=checkpoint.path
    )
    assert weights["encoder/cell/recurrent_kernel"].shape == (256, 1024)


@pytest.mark.skipif(installed_version("tensorflow-addons") is not None, reason="tfa is installed")
def test_without_tfa_the_error_says_so() -> None:
    with pytest.raises(MissingPackageError, match="tensorflow_addons is not installed"):
        run_port(small_case("explicit_state/full"), model="explicit_state/full")
