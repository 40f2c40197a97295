import json
import math

import pytest

from mnist_jax import models
from mnist_jax.config import DIGITS_PRESETS, PRESETS, Config, ConfigError, make_config


@pytest.mark.parametrize(
    "name, value",
    [
        ("seed", -1),
        ("seed", 2**32),
        ("epochs", 0),
        ("epochs", 1_000_001),
        ("epochs", "3"),
        ("epochs", True),
        ("epochs", 1.0),
        ("batch_size", 0),
        ("data_dir", 7),
        ("dataset", "digits\nmnist"),
        ("optimizer", "adam\n"),
        ("optimizer", ["adam"]),
        ("optimizer", "lion"),
        ("schedule", "linear"),
        ("augment", "flip"),
        ("preset", "best"),
        ("sequence", "diagonal"),
        ("learning_rate", 0.0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", 1e-300),
        ("learning_rate", 10**400),
        ("learning_rate", "0.1"),
        ("learning_rate", True),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("weight_decay", 1e300),
        ("clip_norm", -1.0),
        ("label_smoothing", 1.0),
        ("label_smoothing", math.nan),
        ("validation_fraction", 1.0),
        ("validation_fraction", -0.1),
        ("dropout", 1.0),
        ("dropout", -0.5),
        ("bidirectional", 1),
        ("units", 0),
        ("units", 2**31),
        ("layers", 0),
        ("layers", 101),
        ("hidden_sizes", ()),
        ("hidden_sizes", []),
        ("hidden_sizes", 128),
        ("hidden_sizes", (8,) * 101),
        ("hidden_sizes", (128, 0)),
        ("hidden_sizes", (128, 1e3)),
        ("hidden_sizes", (2**31,)),
        ("hidden_sizes", ["128", "many"]),
        ("num_devices", -1),
        ("num_devices", 1_025),
        ("checkpoint_every", 0),
    ],
)
def test_bad_value_is_named_in_one_line(name, value):
    with pytest.raises(ConfigError) as caught:
        make_config(**{"model": "gru", "dataset": "mnist", name: value})
    message = str(caught.value)
    assert message.startswith(f"--{name}=") and "expected" in message
    assert "\n" not in message and len(message) < 200


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_has_a_preset_that_builds(model, dataset):
    config = make_config(model, dataset)
    models.build_model(config)
    assert model in PRESETS and model in DIGITS_PRESETS
    # A preset names all of its model's settings, so that config.json is complete.
    module = models.build_model(config)
    for name in models.MODEL_SETTINGS:
        assert getattr(config, name) == getattr(module, name, None)


def test_a_flag_overrides_the_preset_and_nothing_else():
    preset, changed = make_config("gru", "mnist"), make_config("gru", "mnist", units=7)
    assert changed.units == 7
    assert preset.differences(changed) == ["units"]


def test_a_value_of_none_means_not_given():
    assert make_config("mlp", "mnist", epochs=None) == make_config("mlp", "mnist")


def test_false_and_zero_override():
    config = make_config(
        "gru", "mnist", dropout=0.0, bidirectional=False, clip_norm=0.0
    )
    assert config.clip_norm == 0.0 and config.bidirectional is False


def test_quick_preset_has_a_fifth_of_the_epochs():
    default, quick = (
        make_config("mlp", "mnist", name) for name in ("default", "quick")
    )
    assert quick.epochs == max(1, default.epochs // 5)


def test_only_some_models_have_a_fast_preset():
    fast = make_config("cnn", "mnist", "fast")
    assert fast.epochs < make_config("cnn", "mnist").epochs
    assert make_config("cnn", "mnist", "fast", epochs=3).epochs == 3
    with pytest.raises(ConfigError, match="--preset=fast: gru has no .*--model=cnn"):
        make_config("gru", "mnist", "fast")


def test_digits_train_longer_than_mnist():
    for model in PRESETS:
        assert make_config(model, "digits").epochs > make_config(model, "mnist").epochs


def test_json_round_trip():
    for model in PRESETS:
        config = make_config(model, "mnist", seed=3)
        settings = json.loads(json.dumps(config.to_dict()))
        assert Config.from_dict(settings) == config


def test_place_of_data_and_devices_do_not_make_another_run():
    config = make_config("mlp", "mnist")
    moved = make_config("mlp", "mnist", data_dir="/x", num_devices=3)
    assert config.differences(moved) == []
    assert config.differences(make_config("mlp", "mnist", seed=1)) == ["seed"]


def test_settings_of_another_version_are_refused():
    settings = make_config("mlp", "mnist").to_dict()
    with pytest.raises(ConfigError, match="unknown settings momentum"):
        Config.from_dict({**settings, "momentum": 0.9})
    with pytest.raises(ConfigError, match="damaged .dataset is missing.*--overwrite"):
        Config.from_dict({"model": "mlp"})


@pytest.mark.parametrize("settings", [[], "x", 3, None, [["model", "mlp"]]])
def test_what_holds_no_settings_is_refused(settings):
    with pytest.raises(ConfigError, match="damaged .*instead of names.*--overwrite"):
        Config.from_dict(settings)


def test_a_damaged_setting_is_told_with_the_remedy():
    settings = make_config("mlp", "mnist").to_dict()
    expected = "damaged .--epochs='3': expected a whole number.: restore config.json"
    with pytest.raises(ConfigError, match=expected):
        Config.from_dict({**settings, "epochs": "3"})
