"""One call for each part of the main job."""

from metalayer.workflows.evaluate import evaluate_bundle
from metalayer.workflows.train import train_bundle

__all__ = ["evaluate_bundle", "train_bundle"]
