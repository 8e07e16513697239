"""`python -m engine.evaluation --data DIR --noise LEVELS --peers NAMES -o DIR`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.bundle import BUNDLES, DEFAULT_MODEL
from engine.errors import EngineError
from engine.evaluation.cases import DEFAULT_LEVELS
from engine.evaluation.peers import DEFAULT_PEERS
from engine.evaluation.protocol import Plan, parse_crop, run

_QUICK = {"noise": "ct30c,ct30w,mr7", "peers": "bm4d,bm4d-psd,bm4d-rician", "crop": "16,96,96", "crops": 3}


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate; return 0, or 2 with one clear line when the input is invalid."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = _parser().parse_args(given)
    try:
        run(_plan(chosen, "python -m engine.evaluation " + shlex.join(given)), _tell)
    except (EngineError, OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    """Every option. Those that --quick changes have no default of their own."""
    parser = argparse.ArgumentParser(prog="python -m engine.evaluation", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of exported .npz or NIfTI scans")
    add("--match", action="append", help="glob below the folder; repeatable")
    add(
        "--kept-only", action="store_true", help="only the scans that the model's manifest names as kept back"
    )
    add("--noise", help=f"e.g. ct30c,ct30w,mr7; {DEFAULT_LEVELS} if absent")
    add("--peers", help=f"empty for none; {DEFAULT_PEERS} if absent")
    add("--crop", help="slices,rows,columns of a crop, or whole; 16,128,128 if absent")
    add("--crops", type=int, help="crops of every scan, far apart; 4 if absent")
    add("--draws", type=int, default=1, help="noise realisations of every crop")
    add("--cache", type=Path, help="folder where results of peers are kept between runs")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default=DEFAULT_MODEL, help="id of a shipped bundle")
    which.add_argument("--bundle", type=Path, help="folder of a bundle that is not shipped")
    add("--device", default="auto")
    add("--strength", type=float, default=1.0)
    add("--mode", default="mean", help="mean, refine or sample")
    add("--quick", action="store_true", help="three levels, small crops, BM4D alone, no probes: minutes")
    add("-o", "--output", type=Path, required=True)
    return parser


def _plan(chosen: argparse.Namespace, command: str) -> Plan:
    """The options as a plan, completed with the defaults of the whole or the quick protocol."""
    defaults = {"noise": DEFAULT_LEVELS, "peers": DEFAULT_PEERS, "crop": "16,128,128", "crops": 4}
    if chosen.quick:
        defaults |= _QUICK

    def value(name: str) -> str:
        given = getattr(chosen, name)
        return str(defaults[name] if given is None else given)

    return Plan(
        data=chosen.data,
        output=chosen.output,
        bundle=chosen.bundle or BUNDLES / chosen.model,
        match=tuple(chosen.match or ()),
        kept_only=chosen.kept_only,
        noise=value("noise"),
        peers=value("peers"),
        crop=parse_crop(value("crop")),
        crops=int(value("crops")),
        draws=chosen.draws,
        cache=chosen.cache,
        device=chosen.device,
        strength=chosen.strength,
        mode=chosen.mode,
        probes=not chosen.quick,
        command=command,
    )


def _tell(line: str) -> None:
    """Print one line of progress."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
