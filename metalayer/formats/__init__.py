"""Files of the field, read as they come: one file a format, each a reader of `pieces.Piece`. `sources.py` finds it."""
