"""TensorFlow, imported once and quietly, for the parity tests."""

from __future__ import annotations

import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tensorflow as tf
    import tensorflow_addons as tfa

tf.get_logger().setLevel("ERROR")

__all__ = ["tf", "tfa"]
