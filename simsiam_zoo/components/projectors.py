"""Projectors: the backbone's features [N, in_dim] to z [N, out_dim]."""

from __future__ import annotations

from torch import Tensor, nn

from simsiam_zoo.components.mlp import mlp
from simsiam_zoo.errors import InputError


class MlpProjector(nn.Sequential):
    """The projection MLP of arXiv:2011.10566 section 3; BN's places as in its table 3.

    Args:
        in_dim: width of the features.
        layers: number of fc layers, the output's included.
        hidden_dim: width of the hidden ones.
        out_dim: width of z.
        norm: which layers have BN: "all", "hidden" (not the output) or "none".
        output_affine: scale and shift in the output's BN.

    Raises:
        InputError: `output_affine` where the output has no BN.
    """

    def __init__(
        self,
        *,
        in_dim: int,
        layers: int = 3,
        hidden_dim: int = 2048,
        out_dim: int = 2048,
        norm: str = "all",
        output_affine: bool = False,
    ) -> None:
        if output_affine and norm != "all":
            raise InputError(
                f"output_affine has no effect with norm = {norm}: the output has no BN",
                "Leave it out, or set norm to all.",
            )
        widths = [in_dim, *[hidden_dim] * (layers - 1), out_dim]
        super().__init__(*mlp(widths, norm, output_affine))
        self.out_dim = out_dim


class NoProjector(nn.Module):
    """No projector: z is the feature itself, out_dim = in_dim."""

    def __init__(self, *, in_dim: int) -> None:
        super().__init__()
        self.out_dim = in_dim

    def forward(self, y: Tensor) -> Tensor:
        """[N, in_dim] → the same."""
        return y
