"""How a run's network is wired, by what its parts do and never by their names."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from simsiam_zoo.model.siamese import Batch, Loss, Siamese
from simsiam_zoo.runtime import distributed
from simsiam_zoo.training.setup import Setup
from simsiam_zoo.training.views import view_sizes_of


@dataclass(frozen=True)
class Wiring:
    """What a run's network does, found by trying it.

    Args:
        target_gradient: gradient flows into what predictions are compared with.
        predicts: p is another vector than z.
        predictor_trained: the predictor changes from step to step.
        contrasts: the loss compares the images of a batch with each other, which by itself keeps
            embeddings apart.
        projector_bn: the projector has BN; None: it has no parameters at all.
        bn_batch: images that BN's statistics are taken over; 0: the network has no BN.
    """

    target_gradient: bool = False
    predicts: bool = True
    predictor_trained: bool = True
    contrasts: bool = False
    projector_bn: bool | None = True
    bn_batch: int = 0


def wiring_of(setup: Setup, untrained: Siamese | None) -> Wiring:
    """How the run's network is wired. `untrained` is one like it, which may be spoilt, or None."""
    siamese, optim = setup.siamese, setup.recipe.optim
    predictor, projector = siamese.predictor, siamese.projector
    trained = any(p.requires_grad for p in predictor.parameters())
    norms = any(isinstance(module, _BatchNorm) for module in projector.modules())
    wiring = Wiring(
        predictor_trained=(trained and optim.part("predictor").lr_scale > 0)
        or predictor in siamese.parts_after_step(),
        contrasts=isinstance(siamese.loss, Loss) and siamese.loss.whole_batch,
        projector_bn=norms if any(True for _ in projector.parameters()) else None,
        bn_batch=setup.bn_batch,
    )
    try:
        return wiring if untrained is None else replace(wiring, **_tried(setup, untrained))
    except Exception:  # a plugin's part that does not take two made-up images costs two rules
        return wiring


def _tried(setup: Setup, untrained: Siamese) -> dict[str, bool]:
    """What two made-up images tell: `target_gradient` and `predicts`."""
    policy, made = untrained.eval().gradient, dict[int, Tensor]()
    device, dtype, channels = setup.runtime.device, setup.runtime.dtype, setup.recipe.data.channels
    sizes = view_sizes_of(setup.recipe, untrained)
    for size in sizes:
        x = torch.linspace(-2, 2, 2 * channels * size**2, device=device, dtype=dtype)
        made[size] = x.reshape(2, channels, size, size)
    batch = Batch([made[size] for size in sizes], torch.arange(2, device=device))
    with distributed.apart():
        if policy.blocks:
            with torch.no_grad():
                policy.prepare_block(untrained, iter([batch]))
        with torch.enable_grad():
            output = policy(untrained, batch)
        z = torch.linspace(-1, 1, 2 * untrained.dim, device=device, dtype=dtype).reshape(2, -1)
        predicts = not torch.equal(untrained.predict(z), z)
    pairs = output if isinstance(output, list) else output.pairs
    return {"target_gradient": any(z.requires_grad for _, z in pairs), "predicts": predicts}
