"""A keyed hash of integers: the one source of order in the data room.

Permutations come from sorting by it, not from a library's generator, so that an order recorded
today is the order of any later version of numpy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_M1 = 0xBF58476D1CE4E5B9
_M2 = 0x94D049BB133111EB


def derive_key(*words: int) -> int:
    """One 64-bit key from any number of integers, taken modulo 2^64; their order matters."""
    key = len(words)
    for word in words:
        key = _mix_int((key + _GOLDEN) & _MASK) ^ (word & _MASK)
    return _mix_int((key + _GOLDEN) & _MASK)


def keyed_hash(values: NDArray[np.int64], key: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each value: a bijection for a fixed key, so distinct values never tie.

    Two rounds of splitmix64's finalizer with the key between them (Steele, Lea and Flood 2014,
    doi:10.1145/2660193.2660195; constants of Vigna's splitmix64.c).
    """
    mixed = _mix(values.astype(np.uint64) + np.uint64(key))
    mixed ^= np.uint64(_mix_int(key ^ _GOLDEN))
    return _mix(mixed)


def keyed_order(values: NDArray[np.int64], key: int) -> NDArray[np.intp]:
    """The indices that sort distinct `values` by their keyed hash: a permutation of them."""
    return np.argsort(keyed_hash(values, key))


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x ^= x >> np.uint64(30)
    x *= np.uint64(_M1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_M2)
    x ^= x >> np.uint64(31)
    return x


def _mix_int(x: int) -> int:
    x = ((x ^ (x >> 30)) * _M1) & _MASK
    x = ((x ^ (x >> 27)) * _M2) & _MASK
    return x ^ (x >> 31)
