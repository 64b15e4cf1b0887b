"""A checked model that answers: its folder, the contract of rows, its graph, and the engine."""
