"""The functional core: decides what to do, touches nothing.

Standard library only; no clock, no randomness, no I/O. The tree of modules:

- ``model``          what exists: keys, tokens, keysets, workspaces, and the facts observed about them
- ``policy``         what is wanted: periods, algorithms, windows; ``stored_policy``: what a keyset ends by
- ``contract``       the arithmetic that a policy must keep
- ``schedule``       when a period ends: jitter and rotation windows
- ``lifecycle``      the one table of phases, for keys and tokens alike
- ``actions``        what the planner can ask for; ``transitions``: what each action changes
- ``planner``        keysets: facts + policy + now → actions
- ``tokens``         workspaces: facts + policy + now → the next token
- ``timeguard``      whether the clock can be trusted
- ``invariants``     what must hold in every state
- ``alarms``         how late a delivery is
- ``jwks``           the bytes of a published set and of what stands beside it
- ``events``         the catalogue of audit events; ``audit``: the chain that they form
- ``secret``         what must not be shown; ``redaction``: what must not be shown in texts of others
- ``sinks``, ``durations``  names of sinks and of spans of time
"""
