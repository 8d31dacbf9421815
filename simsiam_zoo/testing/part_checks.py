"""Checks of the five parts as torch modules, each in a small network in its kind's place."""

from __future__ import annotations

import copy
import io
import pickle
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from simsiam_zoo.catalog import PARTS, catalog
from simsiam_zoo.model.build import build
from simsiam_zoo.model.siamese import Batch, Part, StepOutput
from simsiam_zoo.runtime.device import compile_in_place
from simsiam_zoo.testing.checks import Broken, ComponentUnderTest, Inapplicable, check, expect

_COMPILED = ("backbone", "projector", "predictor")

SMALL = {
    "backbone": "test_resnet",
    "projector": "mlp:layers=2,hidden_dim=32,out_dim=32",
    "predictor": "mlp:hidden_dim=8",
    "gradient": "stop-gradient",
    "loss": "cosine",
}
"""The parts around the one that is tested."""

STEPS = 4


class ConformanceBench:
    """A network with the part in it, in training mode, for images of `size` pixels.

    Its weights depend on the seed.
    """

    def __init__(self, tested: ComponentUnderTest, seed: int = 0, size: int = 32) -> None:
        torch.manual_seed(seed)
        parts = {kind: catalog().resolve(kind, spec) for kind, spec in SMALL.items()}
        parts[tested.kind] = tested.resolved
        self.siamese = build(parts, size, 8, STEPS // 2, STEPS)
        self.part = self.siamese.get_submodule(tested.kind)
        self._size = size

    def batch(self, seed: int = 0, n: int = 3) -> Batch:
        """Views [n, 3, size, size], as many as the policy compares, like normalised images.

        For a policy that takes any number there are two more of half that size.
        """
        generator = torch.Generator().manual_seed(seed)
        shape, compared = (n, 3, self._size, self._size), self.siamese.gradient.views
        images = torch.randn(shape, generator=generator)
        noise = torch.randn(compared or 4, *shape, generator=generator)
        views = [images + 0.5 * each for each in noise]
        if not compared:
            half = self._size // 2
            views[2:] = [view[..., :half, :half].contiguous() for view in views[2:]]
        return Batch(views, torch.arange(n))

    def step(self, batch: Batch, number: int = 0, autocast: bool = False) -> Tensor:
        """One step as the loop takes it, with a little SGD. Gradients are left where they are."""
        self.siamese.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, output = self.compare(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for parameter in self.siamese.parameters():
                if parameter.requires_grad and parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad)
        self.siamese.after_step(output, number, STEPS)
        return loss.detach()

    def seeded_step(self, number: int) -> Tensor:
        """The step of that number: its batch and its random draws depend on nothing else."""
        torch.manual_seed(number)
        return self.step(self.batch(number), number)

    def compare(self, batch: Batch) -> tuple[Tensor, StepOutput]:
        """The loss of a batch, which a policy that has blocks is shown first."""
        if self.siamese.gradient.blocks:
            with torch.no_grad():
                self.siamese.gradient.prepare_block(self.siamese, iter([batch]))
        return self.siamese.step(batch)

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint keeps: the state dict, and what is kept for each sample."""
        rows = self.siamese.gradient.per_sample_state()
        return {**self.siamese.state_dict(), **{f"per sample: {k}": v for k, v in rows.items()}}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave of another bench."""
        state = dict(state)
        for name, rows in self.siamese.gradient.per_sample_state().items():
            rows.copy_(state.pop(f"per sample: {name}"))
        self.siamese.load_state_dict(state)


def expect_equal(one: dict[str, Tensor], other: dict[str, Tensor], what: str) -> None:
    """Raise Broken unless two states are equal to the bit; `what` begins the text."""
    expect(one.keys() == other.keys(), f"{what} {sorted(one.keys() ^ other.keys())}")
    differ = [name for name in one if not torch.equal(one[name], other[name])]
    expect(not differ, f"{what} {', '.join(differ[:3])}")


@check(*PARTS, basic=True)
def shapes(tested: ComponentUnderTest) -> None:
    """A backbone maps [N, 3, H, W] to [N, D], a projector to [N, out_dim], a predictor keeps
    [N, dim], a loss gives a scalar, and a policy pairs [N, dim] with [N, dim]; all are finite, and
    what is given is left as it is, since others read it too.

    The way out: give exactly these shapes for every N from 2 up and every width that the host
    gives, and change no input in place: no ReLU(inplace=True) in the first layer, no +=.
    """
    for size in (32, 48):
        bench = ConformanceBench(tested, size=size)
        _watch(bench, tested.kind)
        for n in (2, 5):
            batch = bench.batch(n=n)
            for training in (True, False):
                bench.siamese.train(training)
                bench.compare(batch)


def _watch(bench: ConformanceBench, kind: str) -> None:
    """Raise Broken where the part changes what it is given, or gives what it should not."""
    siamese, before = bench.siamese, list[Tensor]()

    def given_in(args: tuple[Any, ...]) -> list[Tensor]:
        return args[1].views if kind == "gradient" else list(args)

    def remember(part: nn.Module, args: tuple[Any, ...]) -> None:
        before[:] = [x.clone() for x in given_in(args)]

    def compare(part: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = given_in(args)
        for x, was in zip(given, before, strict=True):
            expect(torch.equal(x, was), f"changed its input {list(x.shape)} in place")
        n, found = len(given[0]), [output]
        expected = {"backbone": [n, siamese.in_dim], "loss": []}.get(kind, [n, siamese.dim])
        if kind == "gradient":
            output = StepOutput(output) if isinstance(output, list) else output
            expect(isinstance(output, StepOutput), "gave no list of pairs (prediction, target)")
            expect(len(output.embeddings) <= len(given), "states more embeddings than views")
            found = [*chain.from_iterable(output.pairs), *output.embeddings]
        for y in found:
            right = isinstance(y, Tensor) and list(y.shape) == expected
            for_what = f"for {list(given[0].shape)}"
            expect(right, f"gave {list(getattr(y, 'shape', []))} {for_what}, not {expected}")
            expect(y.isfinite().all(), f"gave values that are not finite {for_what}")

    bench.part.register_forward_pre_hook(remember)
    bench.part.register_forward_hook(compare)


@check(*PARTS, basic=True)
def gradients(tested: ComponentUnderTest) -> None:
    """Finite gradients flow back through a part to the images; every parameter that is trained has
    one in every step, as DDP needs, and none that is frozen; which are trained is settled in setup.

    The way out: detach only targets, keep functions away from where their slope is infinite (sqrt
    or a norm at 0), and set requires_grad in the constructor or in setup: False for parameters that
    no forward pass uses.
    """
    bench = ConformanceBench(tested)
    trained = {name for name, p in bench.siamese.named_parameters() if p.requires_grad}
    for number in range(2):  # a part may use some parameters in the second step only
        batch = bench.batch(number)
        for view in batch.views:
            view.requires_grad_(True)
        expect(bench.step(batch, number).isfinite(), "the loss is not finite")
        grads = [view.grad for view in batch.views if view.grad is not None]
        expect(all(g.isfinite().all() for g in grads), "the gradient of a view is not finite")
        expect(any(g.any() for g in grads), "no gradient reaches the views")
        for name, p in bench.siamese.named_parameters():
            finite = p.grad is None or p.grad.isfinite().all()
            expect(finite, f"the gradient of {name} is not finite")
            expect(name in trained or p.grad is None, f"{name} is frozen and has a gradient")
        now = {name for name, p in bench.siamese.named_parameters() if p.requires_grad}
        expect(now == trained, f"a step changed which are trained: {sorted(now ^ trained)}")
        own = bench.part.named_parameters()
        unused = [name for name, p in own if p.requires_grad and p.grad is None]
        expect(not unused, f"unused in step {number + 1}: {', '.join(unused)}")


@check(*PARTS, basic=True)
def seed(tested: ComponentUnderTest) -> None:
    """The same seed gives the same weights and the same steps, to the bit.

    The way out: draw random numbers with torch only, and from its global generator.
    """
    one, other = ConformanceBench(tested), ConformanceBench(tested)
    expect_equal(
        one.part.state_dict(), other.part.state_dict(), "two builds with one seed differ in"
    )
    losses = [[float(bench.seeded_step(i)) for i in range(2)] for bench in (one, other)]
    expect(losses[0] == losses[1], f"two runs with one seed have losses {losses[0]}, {losses[1]}")
    expect_equal(one.state(), other.state(), "two runs with one seed differ in")


@check(*PARTS)
def state(tested: ComponentUnderTest) -> None:
    """All that a part has learned is in its state_dict (or in per_sample_state), as tensors.

    The way out: keep parameters in nn.Parameter and other tensors in register_buffer.
    """
    first, second = ConformanceBench(tested, seed=0), ConformanceBench(tested, seed=1)
    first.seeded_step(0)
    file = io.BytesIO()
    torch.save(first.state(), file)
    file.seek(0)
    second.load(torch.load(file, weights_only=True))
    was, now = float(first.seeded_step(1)), float(second.seeded_step(1))
    expect(was == now, f"with its state restored the next loss is {now!r}, and was {was!r}")


@check(*PARTS)
def copies(tested: ComponentUnderTest) -> None:
    """A part can be deep-copied and pickled, before training and in its midst.

    The way out: hold no lambdas, locks, open files or tensors of a graph as attributes.
    """
    bench = ConformanceBench(tested)
    for number in range(2):
        state = bench.part.state_dict()
        expect_equal(state, copy.deepcopy(bench.part).state_dict(), "deepcopy changes")
        expect_equal(state, pickle.loads(pickle.dumps(bench.part)).state_dict(), "pickle changes")
        bench.seeded_step(number)
    copied = copy.deepcopy(bench)
    was, now = float(bench.seeded_step(2)), float(copied.seeded_step(2))
    expect(was == now, f"a deep copy's loss is {now!r}, not {was!r}")


@check(*PARTS)
def autocast(tested: ComponentUnderTest) -> None:
    """A part works under autocast in bf16, whose inputs may be bfloat16, and the loss is a finite
    float32.

    The way out: let torch's layers choose the precision, or cast what you compute by hand:
    x.float().
    """
    bench = ConformanceBench(tested)
    loss = bench.step(bench.batch(), autocast=True)
    expect(loss.dtype == torch.float32, f"the loss is {loss.dtype} under bf16")
    expect(loss.isfinite(), "the loss is not finite under bf16")
    grads = (p.grad for p in bench.siamese.parameters() if p.grad is not None)
    expect(all(g.isfinite().all() for g in grads), "a gradient is not finite under bf16")


@check(*PARTS)
def channels_last(tested: ComponentUnderTest) -> None:
    """A part takes images in the memory format channels_last, and computes the same.

    The way out: do not rely on how a tensor lies in memory: flatten or reshape, not view.
    """
    losses = []
    for layout in (torch.contiguous_format, torch.channels_last):
        bench = ConformanceBench(tested)
        bench.siamese.to(memory_format=layout)
        batch = bench.batch()
        batch.views = [view.contiguous(memory_format=layout) for view in batch.views]
        torch.manual_seed(1)
        losses.append(bench.step(batch))
    close = torch.allclose(losses[0], losses[1], rtol=1e-3, atol=1e-4)
    expect(close, f"the loss is {losses[1]:.6f} in channels_last, {losses[0]:.6f} else")


@check(*_COMPILED, slow=True)
def compile(tested: ComponentUnderTest) -> None:
    """A part gives under torch.compile what it gives without, or says compilable = False.

    The way out: avoid Python state that changes in forward, or set the attribute compilable =
    False.
    """
    plain, compiled = ConformanceBench(tested), ConformanceBench(tested)
    part = compiled.part
    if isinstance(part, Part) and not part.compilable:
        raise Inapplicable("it says that it is not compilable")
    if next(part.parameters(), None) is None:
        raise Inapplicable("it has no parameters, and is not compiled")
    torch._dynamo.reset()
    # it traces as inductor does, and generates no code
    compile_in_place([part], torch.device("cpu"), backend="eager")
    try:
        for number in range(2):
            eager, traced = plain.seeded_step(number), compiled.seeded_step(number)
            if not torch.allclose(eager, traced, rtol=1e-4, atol=1e-5):
                raise Broken(f"the loss is {traced:.6f} compiled, {eager:.6f} else")
    finally:
        torch._dynamo.reset()
