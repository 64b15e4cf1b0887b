"""The command line: `metalayer --help`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import metalayer
from metalayer.errors import MetalayerError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (see `errors.py`)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        code: int = options.run(options)
    except MetalayerError as error:
        print(f"metalayer {options.command}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        print(
            f"metalayer {options.command}: package {error.name!r} is not installed; see `metalayer doctor`",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="metalayer",
        description="Recalibrates the per-nucleotide scores of a splice-site model. The training pipeline is "
        "`python pipelines/run.py`.",
    )
    parser.add_argument("--version", action="version", version=f"metalayer {metalayer.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    simulate = commands.add_parser("simulate", help="write made-up genes, scored by the built-in base model")
    simulate.add_argument("--output", type=Path, required=True, help="folder to write")
    simulate.add_argument("--seed", type=int, default=7, help="same seed, same files (default 7)")
    simulate.add_argument("--genes", type=int, default=150, help="how many genes (default 150)")
    simulate.set_defaults(run=_simulate)

    serve = commands.add_parser("serve", help="serve the promoted model over HTTP")
    serve.add_argument("--model", help="registered name, where several models are promoted")
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, this machine only)"
    )
    serve.add_argument("--port", type=int, default=3000, help="port (default 3000)")
    serve.set_defaults(run=_serve)

    doctor = commands.add_parser("doctor", help="check the installation and say what is missing")
    doctor.set_defaults(run=_doctor)
    return parser


def _simulate(options: argparse.Namespace) -> int:
    from metalayer.workflows.simulate import simulate

    summary = simulate(options.output, seed=options.seed, n_genes=options.genes)
    for name, value in summary.items():
        print(f"{name}: {value}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from metalayer.serving.packaging import serve

    code: int = serve(name=options.model, host=options.host, port=options.port)
    return code


def _doctor(options: argparse.Namespace) -> int:
    from metalayer.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'MISSING'} {finding.subject}: {finding.text}")
    broken = [finding for finding in findings if finding.required and not finding.ok]
    print("metalayer is ready" if not broken else f"{len(broken)} things to mend, see above")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
