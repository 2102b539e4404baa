"""What was seen, in a few lines at the end, and where to go from here."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, TextIO

from rotator.core.counting import counted
from rotator.demo.story import Story
from rotator.demo.verifier import Verifier
from rotator.report.proof import ChainProof

FULL_LIFE_AFTER: Final = timedelta(seconds=45)
"""Longer than a key takes from its announcement to its retirement."""

_EXAMPLE: Final = "config.example.yaml"
_PLACES: Final = (Path(__file__).parents[2], Path(sys.prefix) / "share" / "rotator")
"""Where the example is: beside the package in a source tree, else where the package was installed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a showing came to."""

    story: Story
    verifier: Verifier
    proof: ChainProof
    elapsed: timedelta
    seconds: int
    interrupted: bool

    @property
    def problems(self) -> tuple[str, ...]:
        """Return what was not as it should be; empty when all was."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.verifier.refusals:
            yield f"{self.verifier.refusals} valid tokens were refused, the first of them:"
            yield from (f"  {reason}" for reason in self.verifier.reasons)
        if not self.verifier.checks and not self.interrupted:
            yield "no token was checked"
        if self.elapsed >= FULL_LIFE_AFTER and not self.story.full_life_seen:
            yield "no key was seen announced, taking over and retired"
        if not self.proof.intact:
            yield f"the audit chain does not hold: {self.proof.problem}"


def write_summary(stream: TextIO, outcome: Outcome, kept: Path | None) -> None:
    """Write the summary; ``kept`` is the config in the directory that stays, if one does."""
    lines = [
        f"rotator demo: {outcome.elapsed.seconds} seconds of the daemon, in fast motion",
        "",
        *(f"  {label:<9} {text}" for label, text in _facts(outcome)),
        "",
        *([*outcome.problems, ""] if outcome.problems else []),
        *_next_steps(kept),
    ]
    stream.write("\n".join(lines) + "\n")
    stream.flush()


def _facts(outcome: Outcome) -> Iterator[tuple[str, str]]:
    story, verifier, proof = outcome.story, outcome.verifier, outcome.proof
    yield "keys", f"{len(story.announced)} announced, {len(story.took_over)} took over, {len(story.retired)} retired"
    yield "tokens", f"{len(story.rotated)} rotated, of {counted(len(verifier.token_files), 'workspace')}"
    yield "verifier", f"{verifier.checks} checks, {verifier.refusals} refused"
    chain = "the chain is unbroken" if proof.intact else "the chain is BROKEN"
    yield "audit", f"{counted(proof.events, 'event')}, {chain}"


def _next_steps(kept: Path | None) -> Iterator[str]:
    if kept is not None:
        yield f"Kept in {kept.parent}; look into it with: rotator --config {kept} audit list"
    example = next((place / _EXAMPLE for place in _PLACES if (place / _EXAMPLE).exists()), Path(_EXAMPLE))
    yield "The same code rotates keys by the quarter and tokens by the month. Next:"
    yield f"  rotator --config {example} check"
    yield "  README.md tells the rest."
