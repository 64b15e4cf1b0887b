"""One call for each part of the main job; each module is imported for itself, so that none costs another's time."""
