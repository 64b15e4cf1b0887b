"""metalayer: recalibrated donor, acceptor and neither probabilities from a splice model's scores."""

__version__ = "0.1.0"
