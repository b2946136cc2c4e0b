"""Configuration: precedence, part schemas, and errors that say the fix."""

import tomllib

import pytest

from midsentence import config
from midsentence.errors import UserError


def test_defaults_are_filled_in_from_the_parts_themselves():
    made = config.compose()
    assert made.encoder["kind"] == "lstm"
    assert made.encoder["hidden"] == 256
    assert "cell" not in made.encoder
    assert made.decoder["inject"] == ["state", "input"]
    assert made.optimizer["lr"] > 0


def test_precedence(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("latent = 8\n[decoder]\nhidden = 99\n")
    made = config.compose("ptb", file, ["decoder.hidden=50", "seed=3"])
    assert (made.latent, made.decoder["hidden"], made.seed) == (8, 50, 3)
    assert made.tokenizer.kind == "word"
    assert made.decoder["dropout"] == config.compose("ptb").decoder["dropout"]


def test_another_kind_starts_from_its_own_defaults():
    made = config.compose("ptb", None, ["decoder.kind=transformer"])
    assert made.decoder["kind"] == "transformer"
    assert "locked_dropout" not in made.decoder


@pytest.mark.parametrize(
    "asked",
    [
        ["decoder.hidden=512", "decoder.kind=lstm"],
        ["decoder.hidden=512", "decoder.kind=gru"],
        ["decoder.hidden=512", "decoder.kind = transformer", "optimizer.kind=sgd"],
    ],
)
def test_a_kind_that_is_said_last_takes_nothing_away(tmp_path, asked):
    """Nor does a run that goes on by the same command get other settings than it began with."""
    for recipe in (None, "ptb"):
        made = config.compose(recipe, None, asked)
        assert made.decoder["hidden"] == 512
        assert made == config.compose(recipe, None, asked[::-1]) == config.override(made, asked)
    file = tmp_path / "mine.toml"
    file.write_text("[optimizer]\nlr = 0.25\n")
    assert config.compose(None, file, ["optimizer.kind=sgd"]).optimizer["lr"] == 0.25
    made = config.compose(None, None, ["tokenizer.vocab_size=500", "tokenizer.kind=bpe"])
    assert made.tokenizer.vocab_size == 500


@pytest.mark.parametrize("role", ["encoder", "posterior", "prior", "decoder", "objective", "beta"])
def test_every_recipe_takes_every_kind_of_part(role):
    for recipe in config.recipes():
        for kind in config.tables()[role]:
            made = config.compose(recipe, None, [f"{role}.kind={kind}"])
            assert getattr(made, role)["kind"] == kind


def test_a_kind_keeps_what_it_has_of_the_recipe_and_the_users_word_is_not_dropped():
    made = config.compose("word-dropout", None, ["decoder.kind=transformer"])
    assert made.decoder["word_dropout"] == config.compose("word-dropout").decoder["word_dropout"]
    with pytest.raises(UserError, match="has no setting 'free_bits'"):
        config.compose("plain", None, ["objective.kind=rate", "objective.free_bits=0.1"])


@pytest.mark.parametrize("name", ["halvings", "halve_after"])
def test_a_rate_that_is_never_halved_is_refused(name):
    with pytest.raises(UserError, match=rf"{name} = 0"):
        config.compose(None, None, ["optimizer.kind=sgd", f"optimizer.{name}=0"])


def test_nothing_is_saved_that_could_not_be_loaded(tmp_path):
    many = config.compose(None, None, [])
    many.corpus.source = [f"/somewhere/far/away/{i:09}.txt" for i in range(30_000)]
    with pytest.raises(UserError, match="by a pattern in quotes"):
        many.save(tmp_path / "config.toml")
    assert not list(tmp_path.iterdir())


def test_saved_and_loaded_is_the_same(tmp_path):
    made = config.compose("ptb", None, ["seed=7", "training.max_minutes=2.5"])
    made.save(tmp_path / "config.toml")
    assert config.load(tmp_path / "config.toml") == made
    assert tomllib.loads((tmp_path / "config.toml").read_text())["seed"] == 7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.hiden=3", r"encoder 'lstm' has no setting 'hiden'. Did you mean 'hidden'\?"),
        ("recipe=ptb", "a recipe is many settings, --recipe ptb"),
        ("encoder.kind=lstmm", r"there is no encoder 'lstmm'. Did you mean 'lstm'\?"),
        ("latnt=3", r"there is no setting 'latnt'. Did you mean 'latent'\?"),
        ("training.epoch=3", r"training has no setting 'epoch'. Did you mean 'epochs'\?"),
        ("encoder.hidden=wide", "encoder.hidden = 'wide'"),
        ("training.epochs=many", "training.epochs = 'many'"),
        ("prior.kind=nothing", "there is no prior 'nothing'"),
        ("beta.ovr=0.5", "beta 'linear' has no setting 'ovr'"),
        ("nothing", "write it as name=value"),
    ],
)
def test_mistakes_are_named_in_one_line(override, message):
    with pytest.raises(UserError, match=message) as caught:
        config.compose(None, None, [override])
    assert "\n" not in str(caught.value)


def test_a_recipe_in_a_file_is_no_name_alone(tmp_path):
    """It would be written down as if the run were by it."""
    file = tmp_path / "mine.toml"
    file.write_text('recipe = "ptb"\nlatent = 8\n')
    for recipe in (None, "iwae"):
        with pytest.raises(UserError, match=r"mine\.toml only names its recipe: say --recipe ptb"):
            config.compose(recipe, file)
    assert config.compose("ptb", file).latent == 8
    config.compose("ptb").save(file)  # whole, as a run's
    for recipe in (None, "iwae"):
        assert config.compose(recipe, file).recipe == (recipe or "ptb")


def test_a_file_of_settings_may_have_a_bom_and_long_comments(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f"\ufefflatent = 8\n  # {'. ' * 90}\n", "utf-8")
    assert config.compose(None, file).latent == 8
    file.write_text(f"'\u2028#'.{'a.' * 90}a = 1\n", "utf-8")  # no comment
    with pytest.raises(UserError, match="nested too deeply"):
        config.compose(None, file)


def test_unknown_recipe_and_bad_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'ptb'"):
        config.compose("ptbb")
    with pytest.raises(UserError, match="no such configuration file"):
        config.compose(None, tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("latent = \n")
    with pytest.raises(UserError, match="not valid TOML"):
        config.compose(None, tmp_path / "bad.toml")


@pytest.mark.parametrize("name", config.recipes())
def test_every_shipped_recipe_is_whole(name):
    assert config.compose(name).recipe == name
    assert {"about", "cite"} <= set(config.read_recipe(name))


@pytest.mark.parametrize(
    "setting",
    ["seed=-1", "seed=9007199254740993", "latent=-1", "training.max_minutes=0",
     "training.validations=0", "training.threads=0"],
)  # fmt: skip
def test_a_number_that_means_nothing_is_refused_before_there_is_a_run(setting):
    with pytest.raises(UserError, match=setting.partition("=")[0]):
        config.compose(None, None, [setting])


@pytest.mark.parametrize(
    "setting",
    [
        "training.epochs=-1", "training.epochs=inf", "training.epochs=nan", "training.clip=0",
        "training.clip=-1", "training.init=-1", "training.aggressive=-1",
        "training.batch_tokens=-5", "training.max_steps=0", "labels.size=-1",
        f"encoder.layers={10**20}", f"latent={10**11}", f"tokenizer.min_count={10**20}",
        "optimizer.lr=nan", "corpus.max_tokens=0",
    ],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused(setting):
    with pytest.raises(UserError, match=setting.partition("=")[0].replace(".", r"\.")):
        config.compose(overrides=[setting])


def test_settings_are_a_list():
    with pytest.raises(UserError, match=r"a list of texts: \['latent=3'\]"):
        config.compose(None, None, "latent=3")
