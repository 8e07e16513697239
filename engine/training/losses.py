"""The loss: error of F in units of the noise, then gentle terms for structure, edges and bias."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.diffusion.preconditioning import Denoiser, preconditioning
from engine.training.batches import Batch

_SSIM_WINDOW = 7
_CT_WINDOWS = ((-2.4, 6.0), (0.2, 1.6), (0.16, 0.32), (1.6, 8.0))
"""Centre and width in model units: lung, soft tissue, brain, bone."""
_MIN_SNR_CLIP = 5.0


def training_loss(
    denoiser: Denoiser, batch: Batch, weights: dict[str, float], *, auxiliary: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the total loss of a batch and every term by name, detached.

    `auxiliary` switches on SSIM, pyramid and bias terms, on matched states only: they pull away from the
    posterior mean and would disturb the early descent.
    """
    raw, log_variance = denoiser.raw(batch.state, batch.pilot, batch.sigma, batch.condition)
    sigma = batch.sigma[:, None, None, None, None]
    c_skip, c_out, _ = preconditioning(sigma)
    error = raw - (batch.clean - c_skip * batch.state) / c_out
    per_sample = error.square().mean(dim=(1, 2, 3, 4))
    generic = (_MIN_SNR_CLIP * batch.sigma.square()).clamp(max=1.0)
    # Errors are capped in weight where a patch violates its noise estimate badly (few, early).
    terms = {"mse": (per_sample * torch.where(batch.matched, torch.ones_like(generic), generic)).mean()}
    squared = F.avg_pool3d(error.detach().square(), 2)
    terms["nll"] = 0.5 * (log_variance + squared * torch.exp(-log_variance)).mean()
    if auxiliary and bool(batch.matched.any()):
        keep = batch.matched
        mean = (c_skip * batch.state + c_out * raw)[keep]
        terms |= _structure_terms(mean, batch.clean[keep], batch, keep)
    total = terms["mse"] + sum(
        (weights.get(name, 0.0) * term for name, term in terms.items() if name != "mse"),
        start=torch.zeros((), device=error.device),
    )
    return total, {name: term.detach() for name, term in terms.items()}


def _structure_terms(mean: Tensor, clean: Tensor, batch: Batch, keep: Tensor) -> dict[str, Tensor]:
    """SSIM in a display window, multi-scale edges, and low-frequency bias in units of the noise."""
    noise = batch.condition.noise[keep][:, None, None, None, None].clamp_min(1e-3)
    low, width = _windows(batch, keep)
    shown, truth = (((v - low) / width).clamp(0.0, 1.0) for v in (mean, clean))
    pooled = F.avg_pool3d(mean - clean, 8) / noise
    return {
        "ssim": 1.0 - ssim_3d(shown, truth),
        "pyramid": edge_pyramid((mean - clean) / noise),
        "bias": pooled.square().mean(),
    }


def _windows(batch: Batch, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Lower edge and width of each sample's window: CT windows in turn, 0..4 for MR."""
    low, width = [], []
    for index, is_ct in enumerate(batch.condition.is_ct[keep].tolist()):
        centre, span = _CT_WINDOWS[index % len(_CT_WINDOWS)] if is_ct else (2.0, 4.0)
        low.append(centre - span / 2)
        width.append(span)
    shape = (-1, 1, 1, 1, 1)
    device = batch.clean.device
    return torch.tensor(low, device=device).reshape(shape), torch.tensor(width, device=device).reshape(shape)


def ssim_3d(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean SSIM of (N, 1, Z, Y, X) images in [0, 1] with uniform windows of 7^3."""
    c1, c2 = 0.01**2, 0.03**2

    def blur(x: Tensor) -> Tensor:
        return F.avg_pool3d(x, _SSIM_WINDOW, stride=2)

    mean_a, mean_b = blur(a), blur(b)
    var_a = blur(a * a) - mean_a.square()
    var_b = blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (top / ((mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2))).mean()


def edge_pyramid(error: Tensor) -> Tensor:
    """Return the mean absolute gradient of an error over three scales: the perceptual term, no network."""
    total = error.new_zeros(())
    for scale in range(3):
        for axis in (2, 3, 4):
            total = total + error.diff(dim=axis).abs().mean() / 9
        if scale < 2:
            error = F.avg_pool3d(error, 2)
    return total
