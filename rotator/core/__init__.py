"""The functional core: decides what to do, touches nothing.

Standard library only; no clock, no randomness, no I/O. The tree of modules:

- ``model``      what exists: keys, tokens, keysets, workspaces, and the facts observed about them
- ``policy``     what is wanted: periods, algorithms, windows
- ``contract``   the arithmetic that a policy must keep
- ``schedule``   when a period ends: jitter and rotation windows
- ``lifecycle``  the one table of phases, for keys and tokens alike
- ``actions``    what the planner can ask for
- ``planner``    keysets: facts + policy + now → actions
- ``tokens``     workspaces: facts + policy + now → the next token
- ``invariants`` what must hold in every state
- ``jwks``       the bytes of a published set
- ``events``     the catalogue of audit events
"""
