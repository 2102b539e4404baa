"""Simulates as many years as one likes: ``python -m tests.simulation --years 100 --seed 1``.

Each seed is a world of its own with a history of its own; seeds follow one another until enough years have been lived.
At the first broken promise the history is shortened, and printed with how to tell it again.
"""

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.simulation.setting import draw_setting
from tests.simulation.story import MOVES, Shrinker, Step, Told, draw_steps, tell

YEAR = timedelta(days=365.25)
AHEAD = 2
"""Worlds that are begun beside those that are waited for."""


@dataclass(slots=True)
class Sum:
    """What all the worlds together lived through."""

    worlds: int = 0
    lived: timedelta = timedelta(0)
    keys: int = 0
    tokens: int = 0
    ticks: int = 0
    looks: int = 0
    injected: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)

    def add(self, told: Told) -> None:
        self.worlds += 1
        self.lived += told.lived
        self.keys += told.keys
        self.tokens += told.tokens
        self.ticks += told.ticks
        self.looks += told.looks
        self.injected += told.injected
        self.killed += told.killed

    @property
    def years(self) -> float:
        return self.lived / YEAR


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    gc.set_threshold(50_000, 20, 100)
    console = Console(stderr=options.json)
    began = time.monotonic()
    if options.only is not None:
        return _replay(console, options)
    total = Sum()
    try:
        broken = _live(console, options, total)
    except KeyboardInterrupt:
        console.print("Interrupted; until then:")
        broken = None
    _show(console, total, time.monotonic() - began)
    if options.json:
        print(json.dumps(_figures(total, broken, time.monotonic() - began)))
    if broken is not None:
        _explain(console, broken, options.moves)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--years", type=float, default=20, help="how many years to live, all worlds together")
    parser.add_argument("--rotations", type=int, default=0, help="go on until that many keys and tokens were rotated")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--moves", type=int, default=MOVES, help="moves in a history")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--only", help="tell the history of --seed with these moves alone: 3,17,42")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    return parser


def tell_one(seed: int, moves: int) -> Told:
    """Tell the history of one seed; runs in a worker."""
    setting = draw_setting(seed)
    return tell(setting, draw_steps(setting, moves))


def _worlds(options: argparse.Namespace) -> Iterator[Told]:
    if options.workers <= 1:
        seed = options.seed
        while True:
            yield tell_one(seed, options.moves)
            seed += 1
    with ProcessPoolExecutor(options.workers) as pool:
        waiting = [pool.submit(tell_one, options.seed + n, options.moves) for n in range(options.workers + AHEAD)]
        seed = options.seed + len(waiting)
        try:
            while True:
                yield waiting.pop(0).result()
                waiting.append(pool.submit(tell_one, seed, options.moves))
                seed += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _live(console: Console, options: argparse.Namespace, total: Sum) -> Told | None:
    """Add up worlds in ``total``; return the one that broke a promise."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("years"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[rotations]} rotations in {task.fields[worlds]} worlds"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("simulating", total=round(options.years), rotations=0, worlds=0)
        for told in _worlds(options):
            total.add(told)
            rotations = total.keys + total.tokens
            progress.update(bar, completed=int(total.years), rotations=rotations, worlds=total.worlds)
            if not console.is_terminal:
                line = f"seed {told.seed}: {total.years:.1f} years, {total.keys} keys, {total.tokens} tokens"
                print(line, file=sys.stderr, flush=True)
            if told.broken:
                return told
            if total.years >= options.years and rotations >= options.rotations:
                return None
    raise AssertionError("worlds have no end")


def _show(console: Console, total: Sum, seconds: float) -> None:
    console.print(
        f"{total.worlds} worlds lived {total.years:,.1f} years in {seconds:,.0f} s: {total.keys:,} keys and "
        f"{total.tokens:,} tokens rotated in {total.ticks:,} ticks; the promises were checked {total.looks:,} times."
    )
    table = Table(title="What happened to them")
    table.add_column("move")
    table.add_column("times", justify="right")
    for name, count in sorted(total.injected.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(name, f"{count:,}")
    for name, count in sorted(total.killed.items()):
        table.add_row(f"killed {name}", f"{count:,}")
    console.print(table)


def _figures(total: Sum, broken: Told | None, seconds: float) -> dict[str, object]:
    return {
        "worlds": total.worlds,
        "years": round(total.years, 2),
        "keys": total.keys,
        "tokens": total.tokens,
        "ticks": total.ticks,
        "checks": total.looks,
        "seconds": round(seconds, 1),
        "injected": dict(total.injected),
        "killed": dict(total.killed),
        "broken": None if broken is None else {"seed": broken.seed, "promise": broken.broken, "what": broken.what},
    }


def _explain(console: Console, told: Told, moves: int) -> None:
    """Print the shortest history found that breaks the same promise."""
    console.print(f"\n[bold]Broken: {told.broken}[/bold]\nseed {told.seed}: {told.what}", highlight=False)
    console.print("Looking for a shorter history …")
    setting = draw_setting(told.seed)
    steps = Shrinker(setting, told.broken).shrink(draw_steps(setting, moves)[: told.at_step + 1])
    again = tell(setting, steps)
    console.print(explanation(again, steps, moves), highlight=False, markup=False, soft_wrap=True)


def explanation(told: Told, steps: Sequence[Step], moves: int) -> str:
    """Return what was broken, by which history, and how to tell it again."""
    shown = [f"  {step.number:4}  after {step.after}: {step.move}" for step in steps]
    only = ",".join(str(step.number) for step in steps)
    more = "" if moves == MOVES else f" --moves {moves}"
    return "\n".join(
        [
            f"{told.broken}: {told.what}",
            f"seed {told.seed}, {len(steps)} moves:",
            *shown,
            f"again: python -m tests.simulation --seed {told.seed}{more} --only {only}",
        ]
    )


def _replay(console: Console, options: argparse.Namespace) -> int:
    setting = draw_setting(options.seed)
    kept = {int(number) for number in options.only.split(",") if number}
    steps = [step for step in draw_steps(setting, max(options.moves, *kept, 0) + 1) if step.number in kept]
    told = tell(setting, steps)
    console.print(explanation(told, steps, options.moves) if told.broken else "No promise was broken.", markup=False)
    return 1 if told.broken else 0


if __name__ == "__main__":
    sys.exit(main())
