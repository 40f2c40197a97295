"""Settings: what each may be, where it comes from, and which run it makes."""

import json
import math
from pathlib import Path

import pytest

from mnist_jax import config, models
from mnist_jax.config import SETTINGS, Config, ConfigError, make_config
from mnist_jax.presets import DIGITS_PRESETS, PRESETS

ROOT = Path(__file__).parents[1]


# One of each kind of setting, and each way to be wrong; NaN compares with nothing.
@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("epochs", 0, "a whole number from 1 to 1000000"),
        ("epochs", 1_000_001, "a whole number from 1 to 1000000"),
        ("epochs", "3", "a whole number"),
        ("epochs", True, "a whole number"),
        ("epochs", 1.0, "a whole number"),
        ("batch_size", 0, "a whole number of 1 or more"),
        ("seed", 2**32, "a whole number from 0 to 4294967295"),
        ("learning_rate", 0.0, "a number from 1e-37 to 1e+38"),
        ("learning_rate", math.nan, "a number from 1e-37 to 1e+38"),
        ("learning_rate", math.inf, "a number from 1e-37 to 1e+38"),
        ("learning_rate", 10**400, "a number from 1e-37 to 1e+38"),
        ("learning_rate", "0.1", "a number"),
        ("dropout", 1.0, "a number of at least 0 and below 1"),
        ("dropout", -0.5, "a number of at least 0 and below 1"),
        ("label_smoothing", math.nan, "a number of at least 0 and below 1"),
        ("optimizer", "lion", "one of adam, adamw, rmsprop, sgd, soap"),
        ("optimizer", ["adam"], "one of adam, adamw, rmsprop, sgd, soap"),
        ("dataset", "digits\nmnist", "one of auto, mnist"),
        ("data_dir", 7, "a text"),
        ("data_dir", "a\nb", "a text"),
        ("bidirectional", 1, "true or false"),
        ("hidden_sizes", (), "whole numbers from 1 to 16384, with commas"),
        ("hidden_sizes", 128, "whole numbers"),
        ("hidden_sizes", (128, 0), "whole numbers"),
        ("hidden_sizes", (128, 1e3), "whole numbers"),
        ("hidden_sizes", ["128"], "whole numbers"),
    ],
)
def test_bad_value_is_named_in_one_line(name, value, expected):
    with pytest.raises(ConfigError) as caught:
        make_config(**{"model": "gru", "dataset": "mnist", name: value})
    message = str(caught.value)
    assert message.startswith(f"--{name}=") and f": expected {expected}" in message
    assert "\n" not in message and len(message) < 200


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_help_and_a_check(name):
    one = SETTINGS[name]
    assert one.help and "\n" not in one.help and one.expected
    assert one.choices or one.kind in (str, bool) or one.low is not None
    nothing_is_both = object()
    with pytest.raises(ConfigError, match=f"--{name}=.*expected"):
        one.check(nothing_is_both)
    if one.default is not None:
        one.check(one.default)
        text = str(one.default).lower() if one.kind is bool else str(one.default)
        if one.kind is not tuple:
            assert one.parse(text) == one.default
    for choice in one.choices or ():
        one.check(choice)
    for bound, outside in ((one.low, -1), (one.high, 1)):
        if bound is not None:
            values = [bound, bound + outside * max(1, abs(bound))]
            inside, beyond = [(x,) if one.kind is tuple else x for x in values]
            one.check(inside)
            with pytest.raises(ConfigError):
                one.check(beyond)


def test_several_numbers_are_parsed_from_flags_and_sweeps():
    sizes = SETTINGS["hidden_sizes"]
    assert sizes.parse("512,256") == sizes.parse("512-256") == (512, 256)
    for text in ("", "a,b", "8,,8", "1.5"):
        with pytest.raises(ConfigError, match="hidden_sizes.*as in 512,256"):
            sizes.parse(text)


def test_settings_of_models_come_from_the_modules():
    assert SETTINGS["units"].models == (
        "rnn", "lstm", "gru", "lru", "mingru", "minlstm", "fourway", "renet"
    )  # fmt: skip
    assert set(SETTINGS["dropout"].models) == {
        "mlp", "cnn", "resnet", "rnn", "lstm", "gru", "lru", "mingru", "minlstm",
        "fourway", "renet",
    }  # fmt: skip
    assert SETTINGS["dropout"].default is None, "each model has its own"
    assert models.default_settings("mlp")["dropout"] == 0.2


def test_setting_of_another_model_is_refused_with_its_own():
    told = "--units is not a setting of --model=cnn: leave it out .*--dropout"
    with pytest.raises(ConfigError, match=told):
        make_config("cnn", "mnist", units=3)


def test_the_documented_table_is_that_of_the_settings():
    """If not, run the command that stands above it."""
    _, bar, table = (ROOT / "docs/settings.md").read_text().partition("| flag")
    assert bar + table == config.settings_table()


@pytest.mark.parametrize("dataset", ["mnist", "digits"])
@pytest.mark.parametrize("model", models.MODELS)
def test_every_model_has_a_preset_that_names_all_its_settings(model, dataset):
    made = make_config(model, dataset)
    assert model in PRESETS and model in DIGITS_PRESETS
    assert set(made.model_settings()) == set(models.default_settings(model))
    assert models.make_model(model, 10, **made.model_settings())


def test_what_is_given_overrides_the_preset_and_nothing_else():
    preset, changed = make_config("gru", "mnist"), make_config("gru", "mnist", units=7)
    assert changed.units == 7 and preset.differences(changed) == ["units"]
    assert make_config("mlp", "mnist", epochs=None) == make_config("mlp", "mnist")
    off = make_config("gru", "mnist", bidirectional=False, clip_norm=0.0)
    assert off.bidirectional is False and off.clip_norm == 0.0


def test_quick_preset_has_a_fifth_of_the_epochs():
    default, quick = (make_config("mlp", "mnist", x) for x in ("default", "quick"))
    assert quick.epochs == max(1, default.epochs // 5)


def test_fast_preset_is_for_cnn_on_60_000_images():
    fast = make_config("cnn", "mnist", "fast")
    assert fast.epochs < make_config("cnn", "mnist").epochs
    assert make_config("cnn", "mnist", "fast", epochs=3).epochs == 3
    with pytest.raises(ConfigError, match="--preset=fast: gru has no .*--model=cnn"):
        make_config("gru", "mnist", "fast")
    with pytest.raises(ConfigError, match="--preset=fast: .*digits.*60,000 images"):
        make_config("cnn", "digits", "fast")


def test_digits_train_longer_than_mnist():
    for model in PRESETS:
        assert make_config(model, "digits").epochs > make_config(model, "mnist").epochs


@pytest.mark.parametrize("model", models.MODELS)
def test_json_round_trip(model):
    made = make_config(model, "mnist", seed=3)
    assert Config.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_places_and_devices_do_not_make_another_run():
    made = make_config("mlp", "mnist")
    moved = make_config(
        "mlp", "mnist", data_dir="/x", raw_dir="/y", num_devices=3, checkpoint_every=9
    )
    assert made.differences(moved) == [] and made.identity() == moved.identity()
    # As with devices, the same arithmetic in another order.
    kept, computed_again = (
        make_config("gru", "mnist", remat_steps=steps) for steps in (0, 7)
    )
    assert kept.identity() == computed_again.identity()
    assert made.differences(make_config("mlp", "mnist", seed=1)) == ["seed"]


def test_settings_that_a_record_lacks_are_those_before_they_were_added():
    """A setting of a later version does not make another run of one begun before."""
    made = make_config("gru", "mnist")
    settings = made.to_dict()
    for added in ("label_smoothing", "layers", "bidirectional"):
        del settings[added]
    assert Config.from_dict(settings).identity() == made.identity()
    other = make_config("gru", "mnist", layers=2)
    assert Config.from_dict(settings).differences(other) == ["layers"]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"momentum": 0.9}, "unknown settings 'momentum'.*use that version"),
        ({"dataset": ...}, "damaged .dataset missing.*--overwrite"),
        ({"epochs": "3"}, "damaged .--epochs='3': expected.*restore config.json"),
        ({"learning_rate": None}, "damaged .--learning_rate=None"),
    ],
)
def test_settings_that_cannot_be_read_are_told_with_the_remedy(change, told):
    settings = make_config("mlp", "mnist").to_dict() | change
    settings = {name: value for name, value in settings.items() if value is not ...}
    with pytest.raises(ConfigError, match=told):
        Config.from_dict(settings)
