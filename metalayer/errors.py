"""Every error metalayer raises on purpose, in one tree.

MetalayerError                 exit 1  something failed that the user did not write
├── InputError                 exit 2  what the user gave cannot be used
│   ├── ConfigError                    unknown key, impossible value
│   ├── ArtifactError                  base-layer files: absent, damaged, out of range
│   ├── SplitError                     a split that would leak or leave a part without sites
│   ├── SchemaError                    data or model of another feature schema
│   └── RequestError                   a request to the service (`serving.schemas`), with its HTTP status
├── ModelError                         a model directory that is incomplete or damaged
├── TrainingError                      training that cannot go on (no finite loss, no site)
├── EvaluationError                    a metric that cannot be computed
└── RegistryError                      model registry or package store

A message says what was given, what is allowed and what to do next. The exit code is what the
command line and `pipelines/run.py` end with.
"""

from __future__ import annotations


class MetalayerError(Exception):
    """Base of all errors raised on purpose; `exit_code` is the process's exit status."""

    exit_code = 1


class InputError(MetalayerError):
    """What the user gave cannot be used; nothing was written."""

    exit_code = 2


class ConfigError(InputError):
    """One or more configuration mistakes, all listed in the message."""


class ArtifactError(InputError):
    """Base-layer files that are absent, damaged or out of range."""


class SplitError(InputError):
    """A split that would leak, or that leaves a part without a donor or an acceptor."""


class SchemaError(InputError):
    """Rows or a model that belong to another feature schema."""


class ModelError(MetalayerError):
    """A model directory that is incomplete, damaged or of another format version."""


class TrainingError(MetalayerError):
    """Training that cannot start or go on."""


class EvaluationError(MetalayerError):
    """A metric that cannot be computed from what was given."""


class RegistryError(MetalayerError):
    """The model registry or the package store refused or could not be reached."""


class ServiceError(MetalayerError):
    """A server of the model that does not answer, or fails."""
