"""Mutants that no test can catch, for nothing that anybody sees depends on them; each with the reason."""

from typing import Final

PLANNER: Final = "rotator/core/planner.py"
PUBLISH: Final = "rotator/adapters/publish.py"
POLICY: Final = "rotator/core/policy.py"
COMPACT: Final = "rotator/core/compact.py"
CONTRACT: Final = "rotator/core/contract.py"
DURATIONS: Final = "rotator/core/durations.py"
RULES: Final = "_withdraw, _take_over, _reschedule, _make, _publish"

ANY_LIMIT: Final = "Any number that is well above the longest plan will do: it turns a loop into an error."
ONE_OR_OTHER: Final = "The one acts on a keyset that is over, the other on one that is not: never both."
NO_TEXT: Final = "Who asks wants to know whether there is a text: an empty one and None are both none."
NO_SUCH_KEYS: Final = "Five keys of an algorithm that there is today are far from that size; longer ones will come."

ACCEPTED: Final[dict[tuple[str, str], str]] = {
    (PLANNER, "module: 64 -> 65"): ANY_LIMIT,
    (PLANNER, "module: 64 -> 63"): ANY_LIMIT,
    (
        PLANNER,
        f"module: ({RULES}, _activate, _end, _retire, _confirm) -> ({RULES}, _end, _activate, _retire, _confirm)",
    ): ONE_OR_OTHER,
    (PUBLISH, "TreePublisher.publish: wrong or published is None -> wrong"): (
        "What stands as it was written is a set: only who changes it between the two looks makes it none."
    ),
    ("rotator/core/timeguard.py", "_suspicion: return '' -> return None"): NO_TEXT,
    (POLICY, "Policy: False -> True #2"): "It is about the text that a debugger shows.",
    (POLICY, "Policy: False -> True #3"): "The field follows from another one, which is compared.",
    (COMPACT, "_decode: -len(text) -> len(text)"): "The decoder forgives more padding than there need be.",
    (CONTRACT, "_size: count <= SAFE_KEYS and size <= SAFE_BYTES -> count <= SAFE_KEYS"): NO_SUCH_KEYS,
    (CONTRACT, "_size: size <= SAFE_BYTES -> size < SAFE_BYTES"): NO_SUCH_KEYS,
    (DURATIONS, "round_up: span > above -> span >= above"): "That span is whole in either unit.",
    ("rotator/core/audit.py", "_problem: return '' -> return None"): NO_TEXT,
}
