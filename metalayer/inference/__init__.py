"""Applying a trained model."""

from metalayer.inference.predictor import Predictor

__all__ = ["Predictor"]
