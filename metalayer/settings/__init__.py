"""Settings: every one with its unit, range and default, checked on construction and assignment.

`sections.py`, `network.py` and `search.py` hold the sections of a run, `encoders.py` the options of a network's parts,
`run.py` all sections of a pipeline, and `flat.py` the guide's flat configuration, which is made from the same sections:
each field exists once. `door.py` reads files and `--set`. Unknown keys and impossible values are errors, all of them
in one message.
"""
