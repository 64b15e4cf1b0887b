"""What a command says of a model that went through the gate: the decision, why, and where things are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from metalayer.evaluation.tables import in_words
from metalayer.evaluation.verdict import verdict
from metalayer.registry.names import short

_FIGURES = re.compile(r"[:,] difference ")


def decision_lines(
    evaluation: Mapping[str, Any],
    decision: Mapping[str, Any],
    more: str,
    wrapped: Callable[[str, str], str] = lambda line, _indent: line,
) -> list[str]:
    """The decision, of a rejection what was found, the reason in words and what to do next, and each rule.

    Args:
        evaluation: of `workflows.evaluate`.
        decision: of the gate, as a dictionary.
        more: how this command is given more test genes, in words.
        wrapped: breaks a line, whose further lines get an indent.
    """
    lines = [f"gate: {'promoted' if decision['promoted'] else 'rejected'}"]
    if not decision["promoted"]:
        why, advice, _ = verdict(evaluation, decision, more)
        found = in_words(evaluation[evaluation["primary"]]).removesuffix(".")
        named = (("found", found), ("why", why), ("next", advice))
        lines += [wrapped(f"  {name:<7} {text}", " " * 10) for name, text in named]
    for reason in sorted(decision["reasons"], key=lambda reason: bool(reason["passed"])):
        lines.append(wrapped(f"  {'passed' if reason['passed'] else 'FAILED'}  {_reason(reason)}", " " * 10))
    return lines


def model_lines(
    registration: Mapping[str, Any],
    promotion: Mapping[str, Any],
    bento: Mapping[str, Any],
    command: Callable[..., str],
) -> list[str]:
    """Which version it is, how it is asked for where it is no champion, and its Bento.

    Args:
        registration: of `gated.enter`.
        promotion: of `gated.promote`.
        bento: of `gated.package`.
        command: a command of `metalayer` as it is typed, of its arguments.
    """
    lines = [f"model   {registration['name']} version {registration['version']}, alias {promotion['alias']}"]
    if registration["champion_again"]:
        lines.append("        trained again to the champion's own weights: nothing is registered, packaged or moved")
    elif bento["tag"] is None:
        which = f"{short(registration['name'])}/{registration['version']}"
        lines.append(f"        {command('serve', '--model', which)} serves it all the same, and says what it is")
    lines.append(f"Bento   {bento['tag'] or bento['reason']}")
    return lines


def commands_for(registration: Mapping[str, Any], decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What can be done with a registered model: in words, and the command. None of them names a place on a machine.

    Args:
        registration: of `gated.enter`.
        decision: of the gate, as a dictionary.
    """
    name = short(registration["name"])
    is_champion = decision["promoted"] or registration["champion_again"]
    which = name if is_champion else f"{name}/{registration['version']}"
    serve = "Serve it over HTTP" if is_champion else "Serve it all the same; every answer says that it is no champion"
    return [
        (serve, f"metalayer serve --model {which}"),
        ("Ask the server which model answers", "metalayer client model"),
        (
            "Score a file of artifact rows or of per-nucleotide scores",
            f"metalayer score FILE --model {which} --output scores.parquet",
        ),
        (
            "Compare it with the base on further genes",
            f"metalayer evaluate --model {which} --scores FILE --output evaluation.json",
        ),
        ("List all versions and the decisions on them", "metalayer registry list"),
    ]


def _reason(reason: Mapping[str, Any]) -> str:
    """A rule of the gate; where it is passed as it should be, without the figures of the log and the report."""
    text: str = reason["text"]
    return _FIGURES.split(text)[0] if reason["passed"] and "not required" not in text else text
