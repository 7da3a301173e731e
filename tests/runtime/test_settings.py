"""Settings: flags over environment over TOML over defaults; secrets stay secret; mistakes name where to mend them."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from fedbus.aggregator.settings import AggregatorSettings
from fedbus.cli import commands
from fedbus.cli import site as cli_site
from fedbus.cli.names import check_names
from fedbus.console.settings import SubmitterSettings
from fedbus.errors import SettingsError
from fedbus.runtime.settings import DaemonSettings
from fedbus.site.settings import SiteSettings
from fedbus.trust.authority import Authority
from tests.small_federation import subject, write_kit

SECRET = "amqp://mercy:open-sesame@broker/fedbus"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of the developer's own shell."""
    import os

    for name in [n for n in os.environ if n.startswith("FEDBUS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEDBUS_HOME", str(tmp_path / "home"))


@pytest.fixture
def toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "fedbus.toml"
    path.write_text("")
    monkeypatch.setenv("FEDBUS_CONFIG", str(path))
    return path


def site(**flags: object) -> SiteSettings:
    return SiteSettings.load(**{"site_name": "mercy", "site_data": "data", **flags})


def refused(**flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        site(**flags)
    return str(caught.value)


# ------------------------------------------------------------------ where a value comes from


def test_flags_win_over_environment_over_toml_over_defaults(monkeypatch: pytest.MonkeyPatch, toml: Path) -> None:
    seen = [site().threads]
    toml.write_text("[site]\nthreads = 2\n")
    seen.append(site().threads)
    monkeypatch.setenv("FEDBUS_THREADS", "3")
    seen.append(site().threads)
    seen.append(site(threads=4).threads)
    assert seen == [1, 2, 3, 4]


def test_a_flag_that_was_not_given_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_THREADS", "3")
    assert site(threads=None).threads == 3


def test_an_empty_variable_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_THREADS", "")
    assert site().threads == 1


def test_each_daemon_reads_its_own_table_and_what_stands_above_all_tables(toml: Path) -> None:
    toml.write_text('log_level = "debug"\n[site]\nthreads = 2\n[aggregator]\nthreads = 5\nlog_level = "error"\n')
    assert (site().threads, site().log_level) == (2, "debug")
    aggregator = AggregatorSettings.load()
    assert (aggregator.threads, aggregator.log_level) == (5, "error")
    assert SubmitterSettings.load().log_level == "debug"


@pytest.mark.parametrize("text", ["digits,heart_disease", " digits , heart_disease"])
def test_tasks_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FEDBUS_TASKS", text)
    assert site().tasks == ("digits", "heart_disease")


def test_tasks_in_the_file_are_a_list(toml: Path) -> None:
    toml.write_text('[site]\ntasks = ["digits"]\n')
    assert site().tasks == ("digits",)


def test_state_folders_lie_under_the_home_unless_given(tmp_path: Path) -> None:
    assert site().state_dir == tmp_path / "home" / "sites" / "mercy"
    assert site(site_state_dir="/elsewhere").state_dir == Path("/elsewhere")
    assert AggregatorSettings.load().state_dir == tmp_path / "home" / "aggregator"
    assert AggregatorSettings.load().initial_params_dir == tmp_path / "home" / "aggregator" / "params"


def test_a_site_is_lost_after_three_missed_status_messages() -> None:
    assert site(status_interval_s=2).lease_s == 6


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        site().threads = 2


# ------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"threads": 10**6}, "--threads, FEDBUS_THREADS or threads in [site]"),
        ({"max_jobs": 10**9}, "--max-jobs, FEDBUS_MAX_JOBS or max_jobs in [site]"),
        ({"threads": 0}, "--threads, FEDBUS_THREADS or threads in [site]"),
        ({"site_name": "Mercy!"}, "--name, FEDBUS_SITE_NAME or site_name in [site]"),
        ({"site_name": "mercy\n"}, "--name, FEDBUS_SITE_NAME or site_name in [site]"),
        ({"site_data": None}, "--data, FEDBUS_SITE_DATA or site_data in [site]"),
        ({"tasks": 3}, "--task, FEDBUS_TASKS or tasks in [site]"),
        ({"log_level": "loud"}, "--log-level, FEDBUS_LOG_LEVEL or log_level in [site]"),
        ({"slowdown": 0.5}, "--slowdown, FEDBUS_SLOWDOWN or slowdown in [site]"),
    ],
)
def test_a_wrong_value_names_flag_variable_and_key(flags: dict[str, object], says: str) -> None:
    assert says in refused(**flags)


def test_every_wrong_value_is_named_at_once() -> None:
    text = refused(threads=0, slowdown=0, site_name="")
    assert [line.split(":")[0] for line in text.splitlines()] == ["site_name", "threads", "slowdown"]


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_STATUS_INTERVAL_S", "often")
    assert "status_interval_s: input should be a valid number" in refused()


def test_a_setting_without_a_flag_does_not_name_one() -> None:
    with pytest.raises(SettingsError, match=r"\(set FEDBUS_SCORE_TIMEOUT_S or score_timeout_s in \[aggregator\]\)"):
        AggregatorSettings.load(score_timeout_s=0)


@pytest.mark.parametrize(
    ("daemon", "name"), [(SiteSettings, "site"), (AggregatorSettings, "aggregator")], ids=["site", "aggregator"]
)
def test_help_shows_the_default_of_every_flag_that_has_one(daemon: type[DaemonSettings], name: str) -> None:
    shown = {option.name: option.show_default for option in typer.main.get_command(commands.app).commands[name].params}
    for field, flag in ((f, daemon.flags.get(f, f"--{f}")) for f in daemon.model_fields):
        default = daemon.model_fields[field].default
        if flag is not None and default is not None and not daemon.model_fields[field].is_required():
            option = "tasks" if field == "tasks" else flag.removeprefix("--").replace("-", "_")
            said = "no" if default is False else f"{default:g}" if isinstance(default, float) else str(default)
            assert shown[option] == said or "$FEDBUS_HOME" in shown[option], option


@pytest.mark.parametrize(
    ("daemon", "command"),
    [(SiteSettings, cli_site.site), (AggregatorSettings, commands.aggregator)],
    ids=["site", "aggregator"],
)
def test_the_flags_that_errors_name_are_those_of_the_command(daemon: type[DaemonSettings], command: object) -> None:
    of_others = {"context", "web_port"}  # that of the page is a setting of the page
    parameters = set(inspect.signature(command).parameters) - of_others  # type: ignore[arg-type]
    named = {daemon.flags.get(field, f"--{field.replace('_', '-')}") for field in daemon.model_fields} - {None}
    assert {str(flag).removeprefix("--").replace("-", "_").replace("task", "tasks") for flag in named} == parameters


def test_an_unknown_key_in_the_file_is_an_error(toml: Path) -> None:
    toml.write_text("[site]\nthread = 2\n")
    assert "thread: no such setting (in [site] of the TOML file); known: broker_url, " in refused()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"threads = = 2", "not valid TOML"),
        (b"\xff\xfe", "not valid TOML"),
        (b"site = 'amqp://a:secret@b/'", "site must be a table, [site], got str"),
    ],
)
def test_a_broken_file_is_named(toml: Path, content: bytes, says: str) -> None:
    toml.write_bytes(content)
    text = refused()
    assert says in text
    assert f"FEDBUS_CONFIG={toml}" in text


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_CONFIG", "/nowhere/fedbus.toml")
    assert refused() == "FEDBUS_CONFIG=/nowhere/fedbus.toml: cannot be read: No such file or directory"


# ------------------------------------------------------------------ the broker and its password


def test_the_url_that_was_given_is_used() -> None:
    assert site(broker_url=SECRET).url_for("mercy") == SECRET


def test_without_a_url_the_login_of_this_machines_broker_is_used(tmp_path: Path) -> None:
    logins = tmp_path / "home" / "broker" / "logins"
    logins.mkdir(parents=True)
    (logins / "mercy.url").write_text(f"{SECRET}\n")
    assert site().url_for("mercy") == SECRET
    (logins / "ucsf.url").mkdir()
    with pytest.raises(SettingsError, match=r"ucsf\.url cannot be read"):
        site().url_for("ucsf")


def test_without_any_url_the_error_says_what_to_set() -> None:
    with pytest.raises(SettingsError, match=r"no broker is known for login 'mercy': set FEDBUS_BROKER_URL"):
        site().url_for("mercy")


def test_a_password_is_in_no_text_of_the_settings() -> None:
    settings = site(broker_url=SECRET)
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        json.dumps(settings.model_dump(), default=str),
    ):
        assert "open-sesame" not in text


def test_a_password_is_in_no_error(monkeypatch: pytest.MonkeyPatch, toml: Path) -> None:
    monkeypatch.setenv("FEDBUS_BROKER_URL", SECRET)
    assert "open-sesame" not in refused(threads=0)
    toml.write_text(f'broker_url = ["{SECRET}"]\n')
    monkeypatch.delenv("FEDBUS_BROKER_URL")
    text = refused()
    assert "broker_url" in text
    assert "open-sesame" not in text


def test_an_error_hides_the_values_that_led_to_it_also_in_its_chain() -> None:
    with pytest.raises(SettingsError) as caught:
        site(broker_url=[SECRET])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDBUS_HOME")
    monkeypatch.setenv("HOME", "relative")
    with pytest.raises(SettingsError, match="has no home, set FEDBUS_HOME"):
        AggregatorSettings.load()


@pytest.mark.parametrize("value", ["inf", "nan", "-1", "1e300"])
def test_seconds_are_a_number_above_zero_and_at_most_a_year(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDBUS_STATUS_INTERVAL_S", value)
    assert "status_interval_s: input should be" in refused()


# ------------------------------------------------------------------ a kit


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kit of a site, as `fedbus provision` makes it, found by FEDBUS_KIT."""
    folder = tmp_path / "kit"
    write_kit(folder, Authority.new("hearts", at=datetime.now(UTC)), subject("mercy"))
    (folder / "site.toml").write_text(
        '[site]\nsite_name = "mercy"\nsite_data = "data"\nbroker_url = "amqps://hub:5671/fedbus"\n'
        '[site.source]\nkind = "folder"\nfolder = "new"\n'
    )
    monkeypatch.setenv("FEDBUS_KIT", str(folder))
    return folder


def test_a_kit_has_its_own_settings_file_and_relative_paths_begin_there(kit: Path) -> None:
    settings = SiteSettings.load()
    assert settings.site_data == kit / "data"
    assert settings.source is not None
    assert settings.source.folder == kit / "new"
    assert settings.url_for("mercy") == "amqps://hub:5671/fedbus"


def test_a_kit_given_as_a_flag_is_read_as_well(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDBUS_KIT")
    assert SiteSettings.load(kit=kit).site_name == "mercy"


def test_a_settings_file_that_is_named_wins_over_the_kits_and_leaves_paths_as_they_are(kit: Path, toml: Path) -> None:
    toml.write_text('[site]\nsite_name = "mercy"\nsite_data = "elsewhere"\n')
    settings = SiteSettings.load()
    assert settings.site_data == Path("elsewhere")
    assert settings.kit == kit


def test_who_logs_in_is_whom_the_kit_names(kit: Path) -> None:
    identity = SiteSettings.load().identity()
    assert identity is not None
    assert identity.name == "mercy"
    assert site(kit=None).kit == kit


def test_without_a_kit_a_password_logs_in() -> None:
    assert site().identity() is None


@pytest.mark.parametrize("daemon", [AggregatorSettings, SubmitterSettings])
def test_the_kit_of_another_role_is_refused(kit: Path, daemon: type[DaemonSettings]) -> None:
    with pytest.raises(SettingsError, match="is the kit of site mercy"):
        daemon.load().identity()


def test_with_a_kit_no_password_of_this_machines_broker_is_looked_up(kit: Path, tmp_path: Path) -> None:
    logins = tmp_path / "home" / "broker" / "logins"
    logins.mkdir(parents=True)
    (logins / "mercy.url").write_text(f"{SECRET}\n")
    (kit / "site.toml").write_text("")
    with pytest.raises(SettingsError, match=r"site\.toml says no broker_url"):
        site().url_for("mercy")


def test_a_folder_that_is_no_kit_is_said_before_anything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEDBUS_KIT", str(tmp_path / "nowhere"))
    with pytest.raises(SettingsError, match=r"nowhere/key\.pem is missing"):
        site().url_for("mercy")


def test_a_key_of_a_kit_that_does_not_exist_is_an_error(kit: Path) -> None:
    (kit / "site.toml").write_text('[site]\nsite_name = "mercy"\nbroker_uri = "x"\n')
    assert "broker_uri: no such setting" in refused()
    with pytest.raises(SettingsError, match=r"no such setting in \[site\]: broker_uri; did you mean broker_url\?"):
        check_names()
