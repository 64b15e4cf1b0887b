"""One name of a model, and every command that takes it."""

import asyncio
from pathlib import Path

import httpx
import polars as pl
import pytest
from releases import expected, make_bundle, make_champion, make_golden, rewrite, score_rows

from metalayer import cli
from metalayer.errors import InputError, ModelError
from metalayer.models.description import digest
from metalayer.registry import names
from metalayer.registry.names import Registered, parse
from metalayer.registry.tracking import default_tracking_uri
from metalayer.release.engine import Engine
from metalayer.release.golden import made_up_golden, read_golden
from metalayer.schema import CLASSES
from metalayer.serving import champion
from metalayer.serving import serve as serving
from metalayer.serving.app import create_app
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from metalayer.settings.sections import ScoreConfig
from metalayer.workflows.score_genome import registered_model

NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("models") / "own" / "model")


class TestParse:
    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("pwm", ("pwm", None, "champion")),
            ("metalayer-pwm", ("metalayer-pwm", None, "champion")),
            ("pwm@champion", ("pwm", None, "champion")),
            ("pwm@challenger", ("pwm", None, "challenger")),
            ("open.splice_ai-80/12", ("open.splice_ai-80", 12, None)),
            ("models:/metalayer-pwm/3", ("metalayer-pwm", 3, None)),
            ("models:/metalayer-pwm@champion", ("metalayer-pwm", None, "champion")),
        ],
    )
    def test_registered(self, text: str, meant: tuple) -> None:
        assert parse(text) == Registered(*meant, text)

    def test_a_folder_is_that_folder(self, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert parse(str(bundle)) == parse(str(bundle.parent)) == bundle
        monkeypatch.chdir(bundle.parent.parent)
        assert parse("own") == parse("./own") == Path("own/model")  # also where a name may be meant
        assert parse("models:/own") == Registered("own", None, "champion", "models:/own")

    def test_a_folder_of_that_name_without_a_model_is_not_meant(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "pwm").mkdir()
        assert parse("pwm") == Registered("pwm", None, "champion", "pwm")

    @pytest.mark.parametrize("text", ["", "pwm@", "pwm/latest", "pwm/3/4", "models:/", "models:/a/b", "a b", "../pwm"])
    def test_no_name(self, text: str) -> None:
        with pytest.raises(InputError, match=r"--model: given .* allowed are NAME \(its champion\), NAME@ALIAS"):
            parse(text)

    def test_folders_and_files_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"a folder without a model; a model directory holds model\.json"):
            parse(str(tmp_path))
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="which is a file"):
            parse(str(tmp_path / "file"))

    def test_an_older_format(self, tmp_path: Path) -> None:
        old = make_bundle(tmp_path / "old")
        rewrite(old / "model.json", format_version=2)
        with pytest.raises(ModelError, match=r"old: format version 2; this metalayer .* reads 3\. Train again"):
            names.fetch(str(old))


@pytest.mark.integration
class TestRegistry:
    """Of `pwm` versions 1 (champion once), 2 (champion) and 3 (rejected); of `other` version 1, champion."""

    @pytest.fixture(scope="class")
    @staticmethod
    def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
        from metalayer.registry import registration

        home = tmp_path_factory.mktemp("registry")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("METALAYER_HOME", str(home / "state"))
            models = [make_bundle(home / f"m{seed}", seed) for seed in range(4)]
            golden = [make_golden(one, one.with_suffix(".parquet")) for one in models]
            for number in (0, 1):
                make_champion(models[number], golden[number])
            registration.register(models[2], golden[2], base_model="pwm", promoted=False)
            rewrite(models[3] / "model.json", base_model="other")
            from metalayer.registry import line

            made = registration.register(models[3], golden[3], base_model="other", promoted=True)
            line.move(line.read(made.name), [made.version])
        return home

    @pytest.fixture(autouse=True)
    def here(self, state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("METALAYER_HOME", str(state / "state"))
        monkeypatch.chdir(tmp_path)

    def refused(self, capsys: pytest.CaptureFixture[str], *command: str) -> str:
        assert cli.main(list(command)) == 2
        return capsys.readouterr().err

    def test_every_form(self, state: Path) -> None:
        for text, seed, version in (
            ("pwm", 1, 2),
            ("metalayer-pwm@champion", 1, 2),
            ("models:/metalayer-pwm@challenger", 2, 3),
            ("pwm/1", 0, 1),
            ("models:/pwm/1", 0, 1),
            ("other", 3, 1),
        ):
            found = names.fetch(text)
            assert digest(found.directory) == digest(state / f"m{seed}"), text
            assert found.registered is not None
            assert found.registered.version == version

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("pmw", "--model: given pmw, which is no folder; name a model directory, or a registered model; there are: "
             "metalayer-other, metalayer-pwm. Did you mean metalayer-pwm?"),
            ("metalayer-pwn/3", "Did you mean metalayer-pwm?"),
            ("pwm/9", "metalayer-pwm has no version 9; there are: 1, 2, 3"),
            ("pwm@best", "no version of metalayer-pwm is best; name one of metalayer-pwm/1, "
             "metalayer-pwm/2 (champion), metalayer-pwm/3 (challenger)"),
        ],
    )  # fmt: skip
    def test_a_name_that_no_registry_has(self, text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
        rows = Path("rows.parquet")
        pl.DataFrame(score_rows(2)).write_parquet(rows)
        told = self.refused(capsys, "score", str(rows), "--model", text, "--output", "out.parquet")
        assert words in told
        assert f"--model {text}" in told or "--model: given" in told or "has no version" in told
        assert not Path("out.parquet").exists()

    def test_score_and_evaluate(self, state: Path, capsys: pytest.CaptureFixture[str]) -> None:
        rows = score_rows(3)
        pl.DataFrame(rows).write_parquet("rows.parquet")
        assert cli.main(["score", "rows.parquet", "--model", "pwm/3", "--output", "out.parquet"]) == 0
        answers = pl.read_parquet("out.parquet").select(CLASSES).to_numpy()
        assert (answers == expected(state / "m2", rows)).all()
        told = self.refused(
            capsys, "evaluate", "--model", "pwm@nobody", "--scores", "absent.parquet", "--output", "report.json"
        )
        assert "no version of metalayer-pwm is nobody" in told
        told = self.refused(
            capsys, "evaluate", "--model", "pwm", "--scores", "absent.parquet", "--output", "report.json"
        )
        assert "absent.parquet, which is no file" in told

    def test_scoring_all_genes(self) -> None:
        uri = default_tracking_uri()
        for given, version in ((None, 2), (1, 1), ("pwm", 2), ("pwm@challenger", 3), ("models:/metalayer-pwm/1", 1)):
            found = registered_model(ScoreConfig(model=given), "pwm", uri)
            assert (found.name, found.version) == (NAME, version)
        with pytest.raises(InputError, match="recalibrates 'other', but the scores are of 'pwm'"):
            registered_model(ScoreConfig(model="other"), "pwm", uri)
        with pytest.raises(InputError, match=r"score\.model: given pwn, .*Did you mean metalayer-pwm\?"):
            registered_model(ScoreConfig(model="pwn"), "pwm", uri)

    def test_several_champions_and_no_name(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = self.refused(capsys, "serve")
        assert told.splitlines() == [
            "metalayer serve: several models have a champion: metalayer-other, metalayer-pwm; choose one:",
            "  metalayer serve --model metalayer-other",
            "  metalayer serve --model metalayer-pwm",
        ]
        told = self.refused(capsys, "registry", "rollback")
        assert told.splitlines()[1:] == [
            "  metalayer registry rollback metalayer-other",
            "  metalayer registry rollback metalayer-pwm",
        ]
        told = self.refused(capsys, "registry", "promote", "1")
        assert told.splitlines()[1:] == [
            "  metalayer registry promote metalayer-other/1",
            "  metalayer registry promote metalayer-pwm/1",
        ]
        told = self.refused(capsys, "registry", "retire", "--reason", "old")
        assert "  metalayer registry retire metalayer-pwm --reason TEXT" in told
        assert names.which("3", None, "promote") == (NAME, 3)  # which one alone has
        for text, model, meant in (
            ("pwm/1", None, (NAME, 1)),
            ("1", "pwm", (NAME, 1)),
            ("pwm", None, (NAME, None)),
            (None, "other", ("metalayer-other", None)),
            ("pwm@challenger", None, (NAME, 3)),
        ):
            assert names.which(text, model, "promote") == meant
        for text, model in (("1", "pwm/1"), ("pwm/1", "other")):
            with pytest.raises(InputError, match="give NAME/VERSION"):
                names.which(text, model, "promote")
        assert "the gate's decision was 'rejected'" in self.refused(capsys, "registry", "promote", "pwm@challenger")
        assert "name a version, as in metalayer-pwm/3" in self.refused(capsys, "registry", "promote", "pwm")
        assert "undoes the last promotion of a name" in self.refused(capsys, "registry", "rollback", "pwm/1")
        assert "there is none to go back to" in self.refused(capsys, "registry", "rollback", "other")

    def test_what_is_served_and_what_it_says_of_itself(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        built = []
        monkeypatch.setattr(champion, "followed_bento", lambda name: built.append(name) or "a:1")
        monkeypatch.setattr(champion, "package_version", lambda version, **_: built.append(version.version) or "a:1")
        monkeypatch.setattr(champion, "build_bento", lambda *_, **made: built.append(made["version"]) or "a:1")
        _, followed = serving._bento_of("pwm")
        assert followed["STANDING"] == ""
        assert followed["REGISTRY_URI"].startswith("sqlite:///")
        for text, words in (
            ("pwm/1", "metalayer-pwm version 1 is not the champion: another version is, or none"),
            ("pwm/2", "metalayer-pwm version 2 was the champion when this server started"),
            ("pwm@challenger", "metalayer-pwm version 3 is not the champion: the gate rejected it"),
            (str(state / "m0"), "m0 is a model directory that is not registered, and no champion"),
        ):
            _, pinned = serving._bento_of(text)
            assert pinned["REGISTRY_URI"] == ""
            assert pinned["STANDING"].endswith(words)
        assert built == ["pwm", 1, 2, 3, "unregistered"]


def test_golden_rows_that_are_made_up(bundle: Path, tmp_path: Path) -> None:
    golden = read_golden(made_up_golden(bundle, tmp_path / "golden.parquet"))
    rows, answers = golden.rows, golden.answers
    assert len(rows) == len(answers) == 64
    again = made_up_golden(bundle, tmp_path / "again.parquet")
    assert again.read_bytes() == (tmp_path / "golden.parquet").read_bytes()


def test_every_answer_says_that_it_is_not_the_champions(engine: Engine) -> None:
    said = "metalayer-pwm version 1 is not the champion: the gate rejected it"
    body = {"rows": score_rows(1)}

    async def answers(settings: ServingSettings) -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(Serving(engine, settings)))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            asked = [client.get("/v1/model"), client.post("/v1/score", json=body), client.get("/absent")]
            return [await one for one in asked]

    model, scored, absent = asyncio.run(answers(ServingSettings(standing=said)))
    assert (model.json()["standing"], model.json()["alias"]) == (said, None)
    assert scored.json()["note"].endswith(f"; {said}")
    for answer in (model, scored, absent):
        assert answer.headers["x-model-standing"] == said
    for answer in asyncio.run(answers(ServingSettings())):
        assert "x-model-standing" not in answer.headers
