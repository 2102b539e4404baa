"""Tells a history, so that a person can read it and make a test of it."""

from collections.abc import Iterator, Sequence

from tests.model.moves import moves
from tests.model.states import PHASES, REPLICAS, State, canonical, kid_of


def explanation(first: State, steps: Sequence[tuple[int, int]], what: str) -> str:
    """Return a history in words; replicas and keys are named in each line as in the state before it."""
    lines = [f"Broken: {what}", f"  at first: {described(first)}"]
    lines += [f"  {name}\n            {described(after)}" for name, after in told(first, steps)]
    return "\n".join(lines)


def told(first: State, steps: Sequence[tuple[int, int]]) -> Iterator[tuple[str, State]]:
    """Yield the name of each move, and the state after it."""
    state = first
    for move, effect in steps:
        name, follow = list(moves(state))[move]
        count = 0
        try:
            for count, after in enumerate(follow()):
                if count == effect:
                    state = after
                    break
        except Exception as error:  # noqa: BLE001 - the breach
            yield f"{name}: {error}", state
            return
        yield f"{name} [{move}.{effect}]", state
        state = canonical(state)


def described(state: State) -> str:
    """Return a state on one line."""
    keys = "; ".join(
        f"{kid_of(key.number)} {PHASES[key.phase]}"
        + "".join(
            f" {name} {value:+}"
            for name, value in key._asdict().items()
            if name in ("rotate", "grace", "last") and value is not None
        )
        for key in state.database.keys
    )
    trees = "; ".join(
        f"{name} shows {'nothing' if tree is None else ' '.join(map(kid_of, tree.kids)) or 'an empty set'}"
        + (" (by hand)" if tree is not None and tree.faulty else "")
        for name, tree in zip(REPLICAS, state.trees, strict=True)
    )
    held = ", clock held" if state.held else ""
    wish = ("", ", to rotate", ", to rotate at once")[state.database.wish]
    return f"policy {state.policy}{held}{wish}; {keys or 'no key'}; {trees}"
