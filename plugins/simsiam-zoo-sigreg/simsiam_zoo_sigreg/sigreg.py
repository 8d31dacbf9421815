"""SIGReg: the batch's embeddings against a standard normal, along random directions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simsiam_zoo.plugin import Loss, Siamese, StepOutput, gather, world_size


class SigRegLoss(Loss):
    """LeJEPA's loss (Balestriero & LeCun 2025, arXiv:2511.08544): views agree, z is Gaussian.

        L = (1 - λ) d(p, c) + λ SIGReg(p)

        d       the mean of (p - c)² over images and channels
        SIGReg  the mean over random unit directions a of the Epps-Pulley statistic of the N
                numbers a·p, which is 0 only where they look standard normal:

        T(x_1 ... x_N) = N ∫ |1/N Σ exp(i t x_n) - exp(-t²/2)|² exp(-t²/2) dt,  |t| <= t_max

    The integral is taken by the trapezoidal rule at `knots` points from 0 to `t_max`, doubled, as
    the integrand is even. (Algorithm 1 of the paper has 17 points on [-5, 5]; these are the same
    with `t_max=5, knots=9`. The defaults are those of the authors' code.)

    T is taken of the prediction alone. With the policy `view-mean` each view is a prediction once,
    and the target c is the mean over the views: this is LeJEPA's loss. The views of a step share
    their directions, as do its micro-batches and all ranks: step k draws them from the seed k, as
    the authors' code does.

    Among several processes T is that of the global batch; the ranks exchange the 2 x slices x knots
    means, not the embeddings.

    Args:
        lambd: λ.
        slices: the number of directions.
        knots, t_max: of the quadrature.
    """

    minimum = 0.0
    whole_batch = True

    directions: Tensor

    def __init__(self, *, dim: int, lambd: float, slices: int, knots: int, t_max: float) -> None:
        super().__init__()
        self.lambd = lambd
        self.knots, self.t_max = knots, t_max
        first = _directions(dim, slices, 0, torch.device("cpu"))
        self.register_buffer("directions", first.to(torch.get_default_device()))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[N, dim], [N, dim] → scalar >= 0."""
        distance = (prediction - target).square().mean()
        loss: Tensor = (1 - self.lambd) * distance + self.lambd * self.statistic(prediction)
        return loss

    def statistic(self, x: Tensor) -> Tensor:
        """The mean over the directions of T, for [N, dim]; a scalar >= 0."""
        t = torch.linspace(0, self.t_max, self.knots, dtype=x.dtype, device=x.device)  # [knots]
        normal = (-t.square() / 2).exp()
        weights = normal * (2 * self.t_max / (self.knots - 1))  # 2: of t and of -t
        weights[0], weights[-1] = weights[0] / 2, weights[-1] / 2
        angles = (x @ self.directions.to(x.dtype))[..., None] * t  # [N, slices, knots]
        own = torch.stack([angles.cos().mean(dim=0), angles.sin().mean(dim=0)])
        real, imaginary = gather(own[None]).mean(dim=0)  # [slices, knots] each, of all ranks
        error = (real - normal).square() + imaginary.square()
        found: Tensor = (error @ weights).mean() * (len(x) * world_size())
        return found

    def after_step(self, siamese: Siamese, output: StepOutput, step: int, steps: int) -> None:
        """Draw the next step's directions."""
        dim, slices = self.directions.shape
        self.directions.copy_(_directions(dim, slices, step + 1, self.directions.device))


def _directions(dim: int, slices: int, seed: int, device: torch.device) -> Tensor:
    """Independent unit vectors, uniform on the sphere, as columns: [dim, slices]."""
    generator = torch.Generator(device).manual_seed(seed)
    drawn = torch.randn(dim, slices, generator=generator, device=device)
    return functional.normalize(drawn, dim=0)
