"""What code results are of, and what the feature schema's hash covers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from metalayer import provenance, schema
from metalayer.errors import SchemaError
from metalayer.models.description import read_description
from metalayer.provenance import COMPUTING, code_hash, meaning_hash, source_hash
from metalayer.schema import FEATURE_SCHEMA, formulas
from tests.releases import make_bundle

PACKAGE = Path(schema.__file__).parent


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The package as another place has it: a wheel, an image."""
    return Path(
        shutil.copytree(PACKAGE, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("__pycache__", "*.yaml"))
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_code_is_alike_wherever_it_lies_and_every_file_counts(copied: Path) -> None:
    assert source_hash(copied) == source_hash(PACKAGE)
    edit(copied / "data" / "windows.py", "import", "import  ")
    assert source_hash(copied) != source_hash(PACKAGE)


def test_every_package_that_computes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"numpy", "torch", "safetensors", "pydantic", "transformers", "huggingface_hub"} < set(COMPUTING)
    version = provenance.version
    found = {code_hash.__wrapped__()}
    for changed in COMPUTING:
        with monkeypatch.context() as patch:
            patch.setattr(provenance, "version", lambda name, c=changed: "0" if name == c else version(name))
            found.add(code_hash.__wrapped__())

            def absent(name: str, changed: str = changed) -> str:
                if name == changed:
                    raise provenance.PackageNotFoundError(name)
                return version(name)

            patch.setattr(provenance, "version", absent)
            found.add(code_hash.__wrapped__())
    assert len(found) == 1 + 2 * len(COMPUTING)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("features.py", "0.4 * x", "0.5 * x"),
        ("features.py", "EPSILON = 1e-10", "EPSILON = 1e-9"),
        ("features.py", "donor >= acceptor", "donor > acceptor"),
        ("features.py", "_G, _A, _T, _N = 2, 0, 3, 4", "_G, _A, _T, _N = 2, 1, 3, 4"),
        ("features.py", 'f"{prefix}_diff_m1"] = x - m1', 'f"{prefix}_diff_m1"] = m1 - x'),
        ("genome.py", "{DONOR: 1, ACCEPTOR: -1}", "{DONOR: 1, ACCEPTOR: 1}"),
    ],
)
def test_other_formulas_are_another_schema(copied: Path, file: str, old: str, new: str) -> None:
    assert formulas(copied) == formulas()
    edit(copied / file, old, new)
    formulas.cache_clear()
    assert formulas(copied) != formulas()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The 36 derived score features.", "Six and thirty."),
        ("# 1 - D may round below zero where D is 1: floored before the logarithm.", ""),
        ("eps = EPSILON\n", "eps = (\n        EPSILON\n    )  # small\n"),
        ("row_scores: NDArray[np.floating]", "row_scores: NDArray[np.float64]"),
        ("disagree with their formula", "differ"),
    ],
)
def test_words_and_layout_are_none(copied: Path, old: str, new: str) -> None:
    edit(copied / "features.py", old, new)
    formulas.cache_clear()
    assert formulas(copied) == formulas()


def test_the_hash_of_a_meaning_is_that_of_other_versions_of_python() -> None:
    source = "A: float = 1e-10\nB, C = 1, -2\n"
    source += 'def f(x: int, *, y=None) -> str:\n    """Words."""\n    return f"{x}_a" + str(x[1:A])\n'
    assert meaning_hash(source, ("A", "B", "f")) == "144c17e84603cdf20405246c1e070644292760dd232428242f419e628ae34367"
    with pytest.raises(KeyError):
        meaning_hash(source, ("A", "gone"))


def test_a_model_of_other_formulas_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "model")
    assert read_description(bundle)["schema"]["formulas"] == formulas()
    before = FEATURE_SCHEMA.hash
    monkeypatch.setattr(schema, "formulas", lambda: "those of another time")
    assert before != FEATURE_SCHEMA.hash
    with pytest.raises(SchemaError, match="train again"):
        read_description(bundle)
