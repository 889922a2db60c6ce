"""What keeps a live port from having its gradients: run it, watch it, and say where and why.

The port is run eagerly while every operation is noted with the line of the person's code that made it.
What TensorFlow gives is measured first; the noted operations only say where a connection is lost.
"""

from __future__ import annotations

from oracle.live_diagnosis.diagnosis import diagnose_live

__all__ = ["diagnose_live"]
