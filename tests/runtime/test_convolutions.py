"""Convolutions with one output, as products: the same figures as torch's convolution."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from simsiam_zoo.runtime.convolutions import (
    OneOutputConv2d,
    as_products,
    untrustworthy_convolutions,
)

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
FIELDS = st.tuples(st.integers(1, 7), st.integers(1, 7))


@settings(deadline=None)
@given(
    image=SIZES,
    kernel=FIELDS,
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_outputs_and_gradients_are_those_of_the_convolution(
    image, kernel, stride, padding, dilation, bias
) -> None:
    sides = zip(image, padding, kernel, strict=True)
    if (
        min(size + 2 * p - dilation * (k - 1) for size, p, k in sides) < 1
    ):  # torch refuses such a layer, and so do we: by calling it
        return
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 4, kernel, stride, padding, dilation, bias=bias).double()
    ours = copy.deepcopy(plain)
    ours.__class__ = OneOutputConv2d
    x = torch.randn(2, 3, *image, dtype=torch.float64)
    found = []
    for conv in (plain, ours):
        one = x.clone().requires_grad_()
        out = conv(one)
        (out * torch.arange(out.numel()).view_as(out)).sum().backward()
        found.append([out, one.grad, *(p.grad for p in conv.parameters())])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "size", "is_product"),
    [
        (nn.Conv2d(4, 4, 3, 1, 1), 1, True),
        (nn.Conv2d(4, 4, 3, 2, 1), 2, True),
        (nn.Conv2d(4, 4, 7, 2, 3), 2, True),
        (nn.Conv2d(4, 4, 3, 1, 1), 2, False),
    ],
)
def test_it_is_a_product_where_there_is_one_output(conv, size, is_product, monkeypatch) -> None:
    as_products(conv)
    used = []
    original = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *a: used.append(1) or original(*a))
    conv(torch.randn(2, 4, size, size))
    assert bool(used) is is_product


def test_names_weights_copies_and_other_classes_are_left_as_they_are() -> None:
    class Own(nn.Conv2d):
        pass

    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2), Own(4, 4, 3)
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    as_products(network)
    assert [type(layer) for layer in network] == [OneOutputConv2d, nn.Conv2d, nn.Conv2d, Own]
    # Through copies too, as of momentum targets, and through pickles.
    for same in (network, copy.deepcopy(network[:3]), pickle.loads(pickle.dumps(network[:3]))):
        assert type(same[0]) is OneOutputConv2d
        for name, value in same.state_dict().items():
            assert torch.equal(value, before[name])


def test_each_size_of_view_is_tried() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 7, padding=3))
    assert untrustworthy_convolutions(network, 32) == []
    assert untrustworthy_convolutions(network, 32, 2) == ["0 on 2x2"]
