"""Settings: what is given, then the environment, then the default."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from vecsearch.config import DEFAULT_MAX_PIXELS, Settings, default_data_dir
from vecsearch.errors import InvalidInput

ENVIRONMENT = {
    "VECSEARCH_DATABASE_URL": "postgresql://from/environment",
    "VECSEARCH_DATA_DIR": "/from/environment",
    "VECSEARCH_DEVICE": "cuda:1",
    "VECSEARCH_MAX_PIXELS": "1000",
}


def test_with_nothing_given_every_setting_has_its_default() -> None:
    assert Settings.load(environ={}) == Settings(
        None, default_data_dir(), "auto", DEFAULT_MAX_PIXELS
    )


def test_the_environment_goes_before_the_defaults() -> None:
    expected = Settings("postgresql://from/environment", Path("/from/environment"), "cuda:1", 1000)
    assert Settings.load(environ=ENVIRONMENT) == expected


def test_what_is_given_goes_before_the_environment() -> None:
    given = Settings("postgresql://given", Path("/given"), "cpu", 5)
    loaded = Settings.load(
        database_url="postgresql://given",
        data_dir="/given",
        device="cpu",
        max_pixels=5,
        environ=ENVIRONMENT,
    )
    assert loaded == given


def test_an_empty_variable_is_as_good_as_none() -> None:
    assert Settings.load(environ=dict.fromkeys(ENVIRONMENT, "")) == Settings.load(environ={})


def test_the_process_environment_is_read_when_settings_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VECSEARCH_DEVICE", "cuda:7")
    assert Settings.load().device == "cuda:7"


def test_a_data_folder_is_made_absolute_and_its_tilde_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(tmp_path)
    assert Settings.load(data_dir="~/data", environ={}).data_dir == Path("/home/somebody/data")
    assert Settings.load(data_dir="data", environ={}).data_dir == tmp_path / "data"


def test_a_tilde_of_nobody_s_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Settings.load(environ={"VECSEARCH_DATA_DIR": "~no-such-user-here/data"})


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "1e6", "²", " ", "0", "9" * 5000])
def test_a_cap_on_pixels_that_is_no_positive_number_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput, match="VECSEARCH_MAX_PIXELS"):
        Settings.load(environ={"VECSEARCH_MAX_PIXELS": value})


def test_settings_do_not_change() -> None:
    settings = Settings.load(environ={})
    with pytest.raises(FrozenInstanceError):
        settings.device = "cpu"  # type: ignore[misc]  # the point of the test
