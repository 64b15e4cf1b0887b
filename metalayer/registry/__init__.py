"""What was trained, decided and packaged: MLflow's registry and BentoML's store.

The only folder of the library that imports mlflow; what only lists versions does without (`listing.py`).
"""
