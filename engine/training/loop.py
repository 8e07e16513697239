"""The training loop: batches, optimiser, EMA, checkpoints, validation, logs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.bundle import load_bundle
from engine.diffusion.network import SHAPES, UNet, build_network
from engine.diffusion.preconditioning import Denoiser
from engine.training.checkpoint import Ema, Progress, load_checkpoint, read_ema, save_checkpoint
from engine.training.config import TrainingConfig
from engine.training.gradients import untrusted_levels
from engine.training.losses import training_loss
from engine.training.records import RunRecords
from engine.training.stream import BatchStream
from engine.training.validation import Case, load_cases, validate
from engine.training.volumes import TrainingVolume, load_volumes

Tell = Callable[[float, str], None]
"""Called with the fraction done and one line about the run."""


class Trainer:
    """One run in one folder. `run` returns when the steps, or the minutes, are used up."""

    def __init__(
        self, config: TrainingConfig, folder: Path, volumes: list[TrainingVolume], cases: list[Case]
    ) -> None:
        self.config, self.folder, self.cases = config, folder, cases
        device = torch.device(config.device)
        torch.manual_seed(config.seed)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.network = build_network(SHAPES[config.network], device)
        self.network.exact_levels = untrusted_levels(self.network.shape, config)
        self.optimiser = torch.optim.AdamW(
            _groups(self.network, config.weight_decay), betas=(0.9, 0.99), fused=True
        )
        self.ema = Ema(self.network, config.ema)
        self.device = device
        self.stream = BatchStream(volumes, config, device)
        self.progress = Progress()
        self.records = RunRecords(folder)
        self._precision = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        compiled = torch.compile(self.network, dynamic=False) if config.compile else self.network
        self.denoiser = Denoiser(compiled, self._precision)  # type: ignore[arg-type]
        if config.start_from:
            self._start_from(Path(config.start_from))

    def resume(self) -> None:
        """Continue from the folder's checkpoint."""
        self.progress = load_checkpoint(self.folder, self.network, self.optimiser, self.ema, self.device)

    def fraction(self) -> float:
        """Return the share of the run that is done, by steps or by training time."""
        by_steps = self.progress.step / self.config.steps
        by_time = self.progress.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def run(self, tell: Tell) -> None:
        """Train to the end, keeping a checkpoint at most `checkpoint_s` old."""
        saved = validated = time.monotonic()
        while self.fraction() < 1.0:
            start = time.monotonic()
            terms = self.step()
            now = time.monotonic()
            self.progress.seconds += now - start
            self.records.add(self.progress, terms, now - start)
            tell(self.fraction(), f"step {self.progress.step} mse {terms['mse']:.4f}")
            if now - saved > self.config.checkpoint_s:
                self.save()
                saved = time.monotonic()
            if now - validated > self.config.validate_s:
                tell(self.fraction(), self.validate())
                validated = time.monotonic()
        self.stream.close()
        tell(1.0, self.validate())
        self.save()

    def step(self) -> dict[str, float]:
        """Do one optimiser step; return the loss terms, rate and gradient norm."""
        config, progress = self.config, self.progress
        rate = learning_rate(config, progress.step, self.fraction())
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        totals: dict[str, torch.Tensor] = {}
        for part in range(config.accumulate):
            batch = self.stream.take(progress.step * config.accumulate + part)
            loss, terms = training_loss(
                self.denoiser,
                batch,
                config.auxiliary,
                auxiliary=self.fraction() >= config.auxiliary_after,
            )
            (loss / config.accumulate).backward()  # type: ignore[no-untyped-call]
            for name, term in terms.items():
                totals[name] = totals.get(name, 0) + term / config.accumulate
        totals["gradient"] = torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        # Read together: every number read waits for the GPU.
        found = dict(zip(totals, torch.stack(list(totals.values())).tolist(), strict=True))
        if math.isfinite(found["gradient"]):
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        self.ema.update(self.network, progress.step)
        return found | {"rate": rate}

    def validate(self) -> str:
        """Measure the averaged weights on the held-out cases; return one line."""
        if not self.cases:
            return "no validation volumes"
        network = build_network(SHAPES[self.config.network], self.device)
        self.ema.copy_to(network)
        gains = validate(Denoiser(network.eval(), self._precision), self.cases)
        self.progress.best_gain_db = max(self.progress.best_gain_db, gains["mean"])
        self.records.add_validation(self.progress, gains)
        return "gain " + ", ".join(f"{name} {value:.2f} dB" for name, value in gains.items())

    def save(self) -> None:
        """Write checkpoint and curves."""
        self.records.flush()
        save_checkpoint(
            self.folder,
            self.network,
            optimiser=self.optimiser,
            ema=self.ema,
            progress=self.progress,
        )
        self.records.draw_curves()

    def _start_from(self, folder: Path) -> None:
        """Begin with the averaged weights of another run, or of a bundle, where the architectures agree."""
        known = self.network.state_dict()
        bundled = (folder / "manifest.json").is_file()
        weights = load_bundle(folder).network.state_dict() if bundled else read_ema(folder)
        fitting = {k: v for k, v in weights.items() if k in known and known[k].shape == v.shape}
        self.network.load_state_dict(known | fitting)
        self.ema = Ema(self.network, self.config.ema)


def learning_rate(config: TrainingConfig, step: int, fraction: float) -> float:
    """Return the rate: linear warm-up, then a cosine to `final_rate` over the run."""
    warm = min(1.0, (step + 1) / max(config.warm_up, 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(fraction, 1.0)))
    return warm * (config.final_rate + (config.learning_rate - config.final_rate) * cosine)


def build_trainer(config: TrainingConfig, folder: Path) -> Trainer:
    """Load the scans and build the trainer of a run."""
    device = torch.device(config.device)
    data = Path(config.data)
    volumes = load_volumes(data, config.sources, torch.device("cpu") if config.workers else device)
    cases = load_cases(data, config.validation, device) if config.validation else []
    return Trainer(config, folder, volumes, cases)


def _groups(network: UNet, decay: float) -> list[dict[str, object]]:
    """Weight decay on matrices and kernels only."""
    heavy = [p for p in network.parameters() if p.ndim > 1]
    light = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": heavy, "weight_decay": decay}, {"params": light, "weight_decay": 0.0}]
