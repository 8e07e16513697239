"""The 3D U-Net F: Haar bands and conditioning in, Haar bands and one log-variance out.

No layer looks at the statistics of the whole input (RMSNorm is per voxel over channels, attention is
windowed), so a tile of a volume gives what the whole volume gives and absolute HU survive.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.diffusion import fused
from engine.diffusion.convolution import Convolution, convolve
from engine.diffusion.haar import BANDS

IN_CHANNELS = 3 * BANDS
"""Bands of the state z (scaled), of z minus the pilot and of z alone, both in units of the noise."""
COLOUR_SIZE = 8
"""Length of the noise colour descriptor (`engine.diffusion.conditioning`)."""
CONDITION_SIZE = 1 + 1 + COLOUR_SIZE + 2 + 1 + 1
"""log sigma(t), log s_hat, colour, CT/MR one-hot, log spacing ratio, log voxel size."""
GATE_LIMIT = 8.0
"""Noise never exceeds this many deviations: larger bands are structure and are not gated further."""
_ALIGNED = 32
STRIDE = 16
"""Voxels per cell of the coarsest level: every input size is a multiple of it."""


@dataclass(frozen=True)
class NetworkShape:
    """Widths and depths of the U-Net, coarsest last; written into the bundle's manifest.

    widths   channels of the four levels
    encoder  residual blocks per level on the way down
    decoder  residual blocks per level on the way up, finest first (three levels)
    heads    attention heads at the coarsest level
    window   edge of an attention window, in cells of the coarsest level
    gated    whether the head also weighs the noise-scaled bands of z and of z minus the pilot: learned,
             adaptive shrinkage, and a learned share of the pilot
    """

    widths: tuple[int, int, int, int]
    encoder: tuple[int, int, int, int]
    decoder: tuple[int, int, int]
    heads: int = 4
    window: int = 4
    gated: bool = True

    def to_json(self) -> dict[str, list[int] | int | bool]:
        """Return plain JSON values."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}


SHAPES = {
    "small": NetworkShape(widths=(32, 32, 48, 64), encoder=(1, 1, 1, 1), decoder=(1, 1, 1)),
    "base": NetworkShape(widths=(32, 64, 96, 128), encoder=(2, 2, 2, 2), decoder=(3, 2, 2)),
    "wide": NetworkShape(widths=(64, 96, 96, 128), encoder=(1, 2, 2, 2), decoder=(1, 2, 2)),
}
"""Named sizes: `small` for tests and weak machines, `base` and `wide` for shipped weights."""


class ChannelNorm(nn.Module):
    """RMSNorm over channels at every voxel, with FiLM or a learned scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """`x`: (N, C, Z, Y, X); `film`: scale and shift, each (N, C)."""
        mean_square = x.float().square().mean(dim=1, keepdim=True)
        scale = self.scale[None, :, None, None, None]
        if film is not None:
            scale = scale * (1.0 + film[0][:, :, None, None, None])
        out = x * torch.rsqrt(mean_square + 1e-6).to(x.dtype) * scale.to(x.dtype)
        if film is not None:
            out = out + film[1][:, :, None, None, None].to(x.dtype)
        return out

    def activate(self, x: Tensor, film: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the SiLU of the norm; in one pass on a GPU."""
        if fused.usable(x):
            return fused.norm_silu(x, *self._lift(x.shape[0], film))
        return F.silu(self(x, film))

    def _lift(self, count: int, film: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Return scale and shift (N, C) of norm and FiLM together."""
        scale = self.scale.expand(count, -1)
        if film is None:
            return scale, torch.zeros_like(scale)
        return scale * (1.0 + film[0]), film[1]


class ResidualBlock(nn.Module):
    """norm, FiLM, SiLU, conv, norm, SiLU, conv (zero at the start), add."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.film = nn.Linear(embedding, 2 * channels)
        self.conv1 = Convolution(channels, channels)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = Convolution(channels, channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """`x`: (N, C, Z, Y, X); `embedding`: (N, E)."""
        scale, shift = self.film(embedding).chunk(2, dim=1)
        h = self.conv1(self.norm1.activate(x, (scale, shift)))
        change: Tensor = self.conv2(self.norm2.activate(h))
        return x + change


class WindowAttention(nn.Module):
    """Self-attention inside cubes of an absolute grid, `offset` cells shifted; zero at the start."""

    def __init__(self, channels: int, heads: int, window: int, offset: int) -> None:
        super().__init__()
        self.heads, self.window, self.offset = heads, window, offset
        self.norm = ChannelNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """`x`: (N, C, Z, Y, X) of any size; cells outside the volume are masked out of every window."""
        n, _c, *size = x.shape
        pads = [_window_padding(s, self.window, self.offset) for s in size]
        h = self.norm(x).permute(0, 2, 3, 4, 1)
        inside = torch.ones(1, *size, 1, device=x.device, dtype=torch.bool)
        flat = [edge for before, after in reversed(pads) for edge in (before, after)]
        h, inside = F.pad(h, (0, 0, *flat)), F.pad(inside, (0, 0, *flat))
        padded = list(h.shape[1:4])
        edges = [min(self.window, p) for p in padded]
        q, k, v = self.qkv(_to_windows(h, edges)).chunk(3, dim=-1)
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        mask = _to_windows(inside, edges).squeeze(-1).repeat(n, 1)[:, None, None, :]
        mask = mask | ~mask.any(dim=-1, keepdim=True)
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        h = self.out(h.transpose(1, 2).flatten(2))
        h = _from_windows(h, n, padded, edges)
        (z0, _), (y0, _), (x0, _) = pads
        h = h[:, z0 : z0 + size[0], y0 : y0 + size[1], x0 : x0 + size[2]]
        return x + h.permute(0, 4, 1, 2, 3)


def _filled(x: Tensor, channels: int) -> Tensor:
    """Add channels of zeros (N, C, Z, Y, X) until there are that many, channels-last."""
    missing = channels - x.shape[1]
    if missing > 0:
        x = F.pad(x, (0,) * 7 + (missing,))
    return x.contiguous(memory_format=torch.channels_last_3d)


def _window_padding(size: int, window: int, offset: int) -> tuple[int, int]:
    """Cells to add before and after an axis; a short axis is one shrunken window instead."""
    if size <= window:
        return 0, 0
    return offset, -(size + offset) % window


def _to_windows(x: Tensor, edges: list[int]) -> Tensor:
    """(N, Z, Y, X, C) to (N * windows, cells of a window, C)."""
    n, z, y, w, c = x.shape
    ez, ey, ex = edges
    x = x.reshape(n, z // ez, ez, y // ey, ey, w // ex, ex, c).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return x.reshape(-1, ez * ey * ex, c)


def _from_windows(x: Tensor, n: int, size: list[int], edges: list[int]) -> Tensor:
    """Invert `_to_windows`."""
    (z, y, w), (ez, ey, ex), c = size, edges, x.shape[-1]
    x = x.reshape(n, z // ez, y // ey, w // ex, ez, ey, ex, c).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(n, z, y, w, c)


class UNet(nn.Module):
    """The U-Net. Its last layer starts at zero, so an untrained network is the identity denoiser."""

    def __init__(self, shape: NetworkShape, embedding: int = 256) -> None:
        super().__init__()
        self.shape = shape
        self.exact_levels: frozenset[int] = frozenset()
        """Levels computed in fp32 whatever autocast says (`engine.training.gradients`)."""
        w0, w1, w2, w3 = shape.widths
        self.embed = nn.Sequential(
            nn.Linear(CONDITION_SIZE, 128), nn.SiLU(), nn.Linear(128, embedding), nn.SiLU()
        )
        self.stem = nn.Conv3d(IN_CHANNELS, w0, 3, padding=1)
        pairs = ((w0, w1), (w1, w2), (w2, w3))
        # A strided 2x2x2 convolution is a Haar space-to-depth with its 1x1x1 convolution folded in.
        self.downs = nn.ModuleList(nn.Conv3d(a, b, 2, stride=2, bias=False) for a, b in pairs)
        self.ups = nn.ModuleList(nn.ConvTranspose3d(b, a, 2, stride=2, bias=False) for a, b in pairs)
        self.encoder = nn.ModuleList(
            _blocks(width, depth, embedding) for width, depth in zip(shape.widths, shape.encoder, strict=True)
        )
        self.decoder = nn.ModuleList(
            _blocks(width, depth, embedding)
            for width, depth in zip(shape.widths[:3], shape.decoder, strict=True)
        )
        self.attention = nn.ModuleList(
            WindowAttention(w3, shape.heads, shape.window, offset) for offset in (0, shape.window // 2)
        )
        self.head_norm = ChannelNorm(w0)
        self.head = nn.Conv3d(w0, BANDS + 1, 3, padding=1)
        self.gate = nn.Conv3d(w0, 2 * BANDS, 3, padding=1) if shape.gated else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, bands: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return F's bands (N, 8, Z, Y, X) and the log-variance (N, 1, Z, Y, X).

        `bands`: (N, 24, Z, Y, X) at half the volume's resolution, sizes multiples of 8.
        `condition`: (N, CONDITION_SIZE).
        """
        out = self.head_and_gate(bands, condition)
        noise = out[:, :BANDS].float()
        if self.gate is not None:
            # Flat regions are pure noise, which no normalised feature can reproduce to the digit: pass it.
            relative = torch.sinh(bands[:, BANDS:]).clamp(-GATE_LIMIT, GATE_LIMIT)
            weighed = out[:, BANDS + 1 : 3 * BANDS + 1].float() * relative
            noise = noise - weighed[:, :BANDS] - weighed[:, BANDS:]
        return noise, out[:, BANDS : BANDS + 1]

    def head_and_gate(self, bands: Tensor, condition: Tensor) -> Tensor:
        """Return both (N, C, Z, Y, X): 9 channels of the head, 16 of the gate, on a GPU some to spare.

        `bands` and `condition` as `forward` takes them.
        """
        embedding = self.embed(condition)
        h = self._stem(bands)
        skips: list[Tensor] = []
        for level, blocks in enumerate(self.encoder):
            h = self._run(blocks, h, embedding, level)
            if level < 3:
                skips.append(h)
                h = self.downs[level](h)
        for attend in self.attention:
            h = attend(h)
        for level in (2, 1, 0):
            h = self._run(self.decoder[level], self.ups[level](h) + skips[level], embedding, level)
        h = self.head_norm.activate(h)
        layers = [self.head] if self.gate is None else [self.head, self.gate]
        weight = torch.cat([layer.weight for layer in layers])
        bias = torch.cat([layer.bias for layer in layers if layer.bias is not None])
        # One convolution, on a GPU filled up to a width that its matrix units take whole.
        fill = -len(weight) % _ALIGNED if h.is_cuda else 0
        weight = F.pad(weight, (0,) * 9 + (fill,)).contiguous(memory_format=torch.channels_last_3d)
        return convolve(h, weight, F.pad(bias, (0, fill)))

    def _stem(self, bands: Tensor) -> Tensor:
        """The first convolution; on a GPU of bands filled up to a width that its matrix units take whole."""
        fill = -IN_CHANNELS % _ALIGNED if bands.is_cuda else 0
        weight = self.stem.weight
        if fill:
            weight = _filled(weight, IN_CHANNELS + fill)
            bands = _filled(bands, IN_CHANNELS + fill)
        return convolve(bands, weight, self.stem.bias)

    def _run(self, blocks: nn.Module, h: Tensor, embedding: Tensor, level: int) -> Tensor:
        """Apply the residual blocks of a level one after the other."""
        if level in self.exact_levels:
            with torch.autocast(h.device.type, enabled=False):
                h, embedding = h.float(), embedding.float()
                for block in blocks.children():
                    h = block(h, embedding)
            return h
        for block in blocks.children():
            h = block(h, embedding)
        return h


def build_network(shape: NetworkShape, device: torch.device) -> UNet:
    """Return a network on `device` in the layout that 3D convolutions are fastest in."""
    return as_channels_last(UNet(shape).to(device))


def as_channels_last(network: UNet) -> UNet:
    """Lay the weights out channels-last, in place; inputs must be laid out alike."""
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def _blocks(width: int, depth: int, embedding: int) -> nn.ModuleList:
    """Return `depth` residual blocks."""
    return nn.ModuleList(ResidualBlock(width, embedding) for _ in range(depth))
