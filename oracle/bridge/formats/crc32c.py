"""The CRC-32C checksum of TensorFlow's files, in NumPy.

A CRC is linear over GF(2): the data are cut into lanes of one length, all lanes advance together, a byte
a step, and the lanes' remainders are joined two by two. Sources: RFC 3720, appendix B.4; the mask is that
of LevelDB's `crc32c.h`.
"""

from __future__ import annotations

import numpy as np

_POLYNOMIAL = 0x82F63B78
_CHUNK = 1 << 22
_LANES = 1 << 12
_SHORT = 1 << 13
_ALL = 0xFFFFFFFF


def _byte_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _byte_table()
_LIST = _TABLE.tolist()


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of some bytes."""
    view = memoryview(data).cast("B")
    state = _ALL
    for start in range(0, len(view), _CHUNK):
        state = _advance(state, view[start : start + _CHUNK])
    return state ^ _ALL


def unmask(masked: int) -> int:
    """The checksum that is stored as `masked`."""
    rotated = (masked - 0xA282EAD8) & _ALL
    return ((rotated >> 17) | (rotated << 15)) & _ALL


def _advance(state: int, data: memoryview) -> int:
    lanes = _LANES if len(data) >= _SHORT else 0
    head = len(data) % lanes if lanes else len(data)
    for byte in data[:head]:
        state = _LIST[(state ^ byte) & 255] ^ (state >> 8)
    if not lanes:
        return state
    length = (len(data) - head) // lanes
    columns = np.ascontiguousarray(np.frombuffer(data[head:], np.uint8).reshape(lanes, length).T)
    states = np.zeros(lanes, np.uint32)
    states[0] = state
    for column in columns:
        states = _TABLE[(states ^ column) & 255] ^ (states >> 8)
    shift = _shift_by(length)
    while len(states) > 1:
        states = _apply(shift, states[0::2]) ^ states[1::2]
        shift = _apply(shift, shift)
    return int(states[0])


def _shift_by(length: int) -> np.ndarray:
    """The operator that advances a state by `length` zero bytes: the images of the 32 single bits."""
    power = 1 << np.arange(32, dtype=np.uint32)
    result = power
    step = _TABLE[power & 255] ^ (power >> 8)
    while length:
        if length & 1:
            result = _apply(step, result)
        step = _apply(step, step)
        length >>= 1
    return result


def _apply(operator: np.ndarray, states: np.ndarray) -> np.ndarray:
    out = np.zeros_like(states)
    for bit in range(32):
        out ^= np.where((states >> np.uint32(bit)) & 1, operator[bit], np.uint32(0))
    return out
