"""How a number of things is told to people, everywhere: ``1 key``, ``2 keys``."""


def counted(number: int, one: str, many: str = "") -> str:
    """Return ``number`` with ``one`` or ``many``; ``many`` is left out where it is ``one`` with an s.

    What follows in the sentence may stand in both: ``counted(number, "key is", "keys are")``.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"
