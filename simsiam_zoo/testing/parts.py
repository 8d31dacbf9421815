"""Checks of the five parts as torch modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS
from simsiam_zoo.model.siamese import GradientPolicy, Part, StepOutput
from simsiam_zoo.runtime.device import compile_in_place
from simsiam_zoo.testing import bench
from simsiam_zoo.testing.checks import Broken, Inapplicable, check, expect
from simsiam_zoo.testing.plugins import Subject

COMPILED = ("backbone", "projector", "predictor")


@check(
    "shapes",
    *PARTS,
    asks="a backbone maps [N, 3, H, W] to [N, D], a projector to [N, out_dim], a predictor keeps"
    " [N, dim], a loss gives a scalar, and a policy pairs [N, dim] with [N, dim]; all are finite.",
    way_out="give exactly these shapes for every N from 2 up and every width that the host gives.",
    basic=True,
)
def shapes_are_right(subject: Subject) -> None:
    """Batches of 2 and 5, several widths, in training and in eval mode."""
    shapes = _pairs if subject.kind == "gradient" else _tensors
    for n in (2, 5):
        for given, expected, found in shapes(subject, n):
            right = isinstance(found, Tensor) and found.shape == torch.Size(expected)
            expect(right, f"gave {bench.shape(found)} for {given}, not {list(expected)}")
            expect(found.isfinite().all(), f"gave values that are not finite for {given}")


def _tensors(subject: Subject, n: int) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    for size in (32, 48) if subject.kind == "backbone" else (8, 24):
        module, inputs, expected = _alone(subject, n, size)
        expect(isinstance(module, nn.Module), "is no torch.nn.Module")
        given = " and ".join(bench.shape(x) for x in inputs)
        for training in (True, False):
            with torch.no_grad():
                yield given, expected, module.train(training)(*inputs)


def _alone(subject: Subject, n: int, size: int) -> tuple[nn.Module, list[Tensor], tuple[int, ...]]:
    """A part by itself, what to give it, and the shape that should come."""
    torch.manual_seed(size)
    x = torch.randn(n, size)
    if subject.kind == "backbone":
        module = subject.create(image_size=size)
        return module, [torch.randn(n, 3, size, size)], (n, bench.features(module, size))
    if subject.kind == "projector":
        module = subject.create(in_dim=size)
        width = getattr(module, "out_dim", None)
        expect(type(width) is int, f"has out_dim {width!r}; a projector states its width")
        return module, [x], (n, int(module.out_dim))
    if subject.kind == "predictor":
        return subject.create(dim=size), [x], (n, size)
    return subject.create(dim=size), [x, torch.randn(n, size)], ()


def _pairs(subject: Subject, n: int) -> Iterator[tuple[str, tuple[int, ...], Tensor]]:
    siamese = bench.make(subject)
    policy = siamese.gradient
    expect(isinstance(policy, GradientPolicy), "is no simsiam_zoo.plugin.GradientPolicy")
    given = bench.batch(siamese, n=n)
    bench.prepared(siamese, given)
    output = policy(siamese, given)
    stated = isinstance(output, StepOutput)
    pairs, z = (output.pairs, output.embeddings) if stated else (output, ())
    expect(
        (stated or isinstance(output, list)) and pairs, "gave no list of pairs (prediction, target)"
    )
    many = f"states {len(z)} embeddings of {len(given.views)} views"
    expect(len(z) <= len(given.views), many)
    for side in (*chain.from_iterable(pairs), *z):
        yield f"{len(given.views)} views of {n} images", (n, siamese.dim), side


@check(
    "inputs",
    *PARTS,
    asks="a part leaves the tensors that it is given as they are, since others read them too.",
    way_out="avoid in-place operations on inputs: no ReLU(inplace=True) in the first layer, no +=.",
)
def inputs_are_left_alone(subject: Subject) -> None:
    """What one part changes in place, another reads: z is predicted from, and a target too."""
    if subject.kind == "gradient":
        siamese = bench.make(subject)
        given = bench.batch(siamese)
        _unchanged(given.views, lambda: bench.step(siamese, given))
        return
    module, inputs, _ = _alone(subject, 4, 32)
    with torch.no_grad():
        _unchanged(inputs, lambda: module.train()(*inputs))


def _unchanged(inputs: list[Tensor], run: Callable[[], object]) -> None:
    before = [x.clone() for x in inputs]
    run()
    for x, was in zip(inputs, before, strict=True):
        expect(torch.equal(x, was), f"changed its input {bench.shape(x)} in place")


@check(
    "gradients",
    *PARTS,
    asks="finite gradients flow back through a part to the images; none reach what is frozen, and"
    " which parameters are trained is settled in setup.",
    way_out="detach only targets, keep functions away from where their slope is infinite (sqrt or a"
    " norm at 0), and set requires_grad in the constructor or in setup.",
    basic=True,
)
def gradients_flow(subject: Subject) -> None:
    """Through the whole network, from the loss to the views."""
    siamese = bench.make(subject)
    trained = {name for name, p in siamese.named_parameters() if p.requires_grad}
    given = bench.batch(siamese)
    for view in given.views:
        view.requires_grad_(True)
    loss = bench.step(siamese, given)
    expect(loss.isfinite(), "the loss is not finite")
    grads = [view.grad for view in given.views if view.grad is not None]
    expect(all(g.isfinite().all() for g in grads), "the gradient of a view is not finite")
    expect(any(g.any() for g in grads), "no gradient reaches the views")
    for name, p in siamese.named_parameters():
        expect(p.grad is None or p.grad.isfinite().all(), f"the gradient of {name} is not finite")
        expect(name in trained or p.grad is None, f"{name} is frozen and has a gradient")
    now = {name for name, p in siamese.named_parameters() if p.requires_grad}
    expect(now == trained, f"a step changed which are trained: {sorted(now ^ trained)}")


@check(
    "seed",
    *PARTS,
    asks="the same seed gives the same weights and the same steps, to the bit.",
    way_out="draw random numbers with torch only, and from its global generator.",
    basic=True,
)
def a_seed_decides_everything(subject: Subject) -> None:
    """Two builds, two steps each."""
    one, other = bench.make(subject), bench.make(subject)
    states = [bench.own(each, subject).state_dict() for each in (one, other)]
    bench.same(states[0], states[1], "two builds with one seed differ in")
    losses = []
    for siamese in (one, other):
        torch.manual_seed(1)
        losses.append([float(bench.step(siamese, bench.batch(siamese, i), i)) for i in range(2)])
    expect(losses[0] == losses[1], f"two runs with one seed have losses {losses[0]}, {losses[1]}")
    bench.same(bench.state(one), bench.state(other), "two runs with one seed differ in")


@check(
    "ddp",
    *PARTS,
    asks="every parameter that is trained has a gradient in every step, as DDP needs.",
    way_out="remove parameters that no forward pass uses, or freeze them: requires_grad_(False).",
)
def no_parameter_is_unused(subject: Subject) -> None:
    """Two steps, since a part may use some in the second only."""
    siamese = bench.make(subject)
    for number in range(2):
        for parameter in siamese.parameters():
            parameter.grad = None
        bench.step(siamese, bench.batch(siamese, number), number)
        mine = bench.own(siamese, subject).named_parameters()
        unused = [name for name, p in mine if p.requires_grad and p.grad is None]
        expect(not unused, f"unused in step {number + 1}: {', '.join(unused)}")


@check(
    "autocast",
    *PARTS,
    asks="a part works under autocast in bf16, whose inputs may be bfloat16, and the loss is a"
    " finite float32.",
    way_out="let torch's layers choose the precision, or cast what you compute by hand: x.float().",
)
def works_under_autocast(subject: Subject) -> None:
    """Forward and backward."""
    siamese = bench.make(subject)
    loss = bench.step(siamese, bench.batch(siamese), autocast=True)
    expect(loss.dtype == torch.float32, f"the loss is {loss.dtype} under bf16")
    expect(loss.isfinite(), "the loss is not finite under bf16")
    grads = (p.grad for p in siamese.parameters() if p.grad is not None)
    expect(all(g.isfinite().all() for g in grads), "a gradient is not finite under bf16")


@check(
    "channels-last",
    *PARTS,
    asks="a part takes images in the memory format channels_last, and computes the same.",
    way_out="do not rely on how a tensor lies in memory: flatten or reshape, not view.",
)
def works_channels_last(subject: Subject) -> None:
    """The trainer keeps weights and images so."""
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        siamese = bench.make(subject).to(memory_format=layout)
        given = bench.batch(siamese)
        given.views = [view.contiguous(memory_format=layout) for view in given.views]
        torch.manual_seed(1)
        losses.append(bench.step(siamese, given))
    close = torch.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    expect(close, f"the loss is {losses[1]:.6f} in channels_last, {losses[0]:.6f} else")


@check(
    "compile",
    *COMPILED,
    asks="a part gives under torch.compile what it gives without, or says compilable = False.",
    way_out="avoid Python state that changes in forward, or set the attribute compilable = False.",
    slow=True,
)
def compiles(subject: Subject) -> None:
    """With the backend `eager`, which traces as inductor does and generates no code."""
    plain, compiled = bench.make(subject), bench.make(subject)
    part = bench.own(compiled, subject)
    if isinstance(part, Part) and not part.compilable:
        raise Inapplicable("it says that it is not compilable")
    if next(part.parameters(), None) is None:
        raise Inapplicable("it has no parameters, and is not compiled")
    torch._dynamo.reset()
    compile_in_place([part], torch.device("cpu"), backend="eager")
    try:
        for number in range(2):
            losses = []
            for siamese in (plain, compiled):
                torch.manual_seed(number)
                losses.append(bench.step(siamese, bench.batch(siamese, number), number))
            if not torch.allclose(losses[0], losses[1], rtol=1e-4, atol=1e-5):
                raise Broken(f"the loss is {losses[1]:.6f} compiled, {losses[0]:.6f} else")
    finally:
        torch._dynamo.reset()
