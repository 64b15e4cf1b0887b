"""Serving the promoted model: registry, package, engine and HTTP interface."""
