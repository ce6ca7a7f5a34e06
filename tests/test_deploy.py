"""The files of deploy/ keep step with the package: paths, commands, modules, variables, versions, the instance.

Nothing is built or started here. What the chart and Dagster accept is checked against Dagster's own parsers and, for
the chart, against the names of its values in the release that constraints.txt pins.
"""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema

from algobot_assets.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
VALUES = yaml.safe_load((DEPLOY / "kubernetes" / "values.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
HOME = re.search(r"DAGSTER_HOME=(\S+)", DOCKERFILE)[1]

#: The chart's names of values, of the parts that are used here.
_POD = "image env envConfigMaps envSecrets labels nodeSelector affinity tolerations podSecurityContext securityContext"
_POD += " resources livenessProbe readinessProbe startupProbe annotations schedulerName volumeMounts volumes"
CHART = {
    "": "global postgresql generatePostgresqlPasswordSecret generateCeleryConfigSecret dagster-user-deployments "
    "dagsterWebserver dagsterDaemon runLauncher retention telemetry additionalInstanceConfig",
    "global": "postgresqlSecretName dagsterHome serviceAccountName celeryConfigSecretName",
    "postgresql": "enabled image postgresqlHost postgresqlUsername postgresqlPassword postgresqlDatabase "
    "postgresqlParams postgresqlScheme service",
    "dagsterWebserver": f"{_POD} replicaCount nameOverride pathPrefix service workspace deploymentLabels "
    "enableReadOnly dbStatementTimeout dbPoolRecycle logLevel",
    "dagsterDaemon": f"{_POD} enabled runCoordinator heartbeatTolerance deploymentLabels runMonitoring runRetries "
    "sensors schedules",
    "runLauncher.config.k8sRunLauncher": "image imagePullPolicy jobNamespace loadInclusterConfig kubeconfigFile "
    "envConfigMaps envSecrets envVars volumeMounts volumes labels failPodOnRunFailure resources schedulerName "
    "securityContext runK8sConfig",
    "runLauncher.config.k8sRunLauncher.runK8sConfig": "containerConfig podSpecConfig podTemplateSpecMetadata "
    "jobSpecConfig jobMetadata",
}
#: Where the programs keep their command lines.
PROGRAMS = {
    "dagster": ("dagster._cli", "create_dagster_cli"),
    "dagster-webserver": ("dagster_webserver.cli", "dagster_webserver"),
    "dagster-daemon": ("dagster._daemon.cli", "create_dagster_daemon_cli"),
}
DEPLOYMENT = f"{_POD} name dagsterApiGrpcArgs codeServerArgs includeConfigInLaunchedRuns port"


def parsed(command: list[str]) -> None:
    """Let the program's own command line take the words apart; nothing is run."""
    program, *words = command
    if program == "algobot":
        group: Any = importlib.import_module("algobot_assets.cli.app").cli
    else:
        module, name = PROGRAMS[program]
        group = getattr(importlib.import_module(module), name)
        if not isinstance(group, click.Command):  # made when it is asked for
            group = group()
    context = click.Context(group, info_name=program)
    while isinstance(group, click.Group):
        assert words and words[0] in group.commands, f"{program} has no command {' '.join(words)}"
        group, words = group.commands[words[0]], words[1:]
    group.make_context(program, words, parent=context)


def services() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in COMPOSE["services"].items() if name != "postgres"}


def test_the_image_copies_what_is_there_and_runs_as_nobody_special():
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.M)
        for source in [word for word in shlex.split(line) if not word.startswith("--")][:-1]
    ]
    assert copied and all((ROOT / source).exists() for source in copied)
    needed = {"algobot_assets", "migrations", "dagster.yaml", "workspace.yaml", "algobot.yaml", "constraints.txt"}
    assert needed <= set(copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {source for source in copied if f"!{source}" not in ignored} == set()
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    assert user == [("10001", "10001")]
    assert {VALUES["dagsterDaemon"]["podSecurityContext"][k] for k in ("runAsUser", "runAsGroup")} == {10001}
    extras = re.search(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.M)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    python = re.search(r"^ARG PYTHON=3\.(\d+)-slim", DOCKERFILE, re.M)[1]
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups())
    assert low <= int(python) < high


def test_every_command_is_one_that_its_program_takes():
    commands = [yaml.safe_load(line) for line in re.findall(r"^(?:CMD|    CMD) (\[.+\])$", DOCKERFILE, re.M)]
    assert len(commands) == 2
    commands += [service["command"] for service in services().values() if "command" in service]
    commands.append(COMPOSE["services"]["daemon"]["healthcheck"]["test"][1:])
    job = yaml.safe_load((DEPLOY / "kubernetes" / "migrate.yaml").read_text())
    commands.append(job["spec"]["template"]["spec"]["containers"][0]["command"])
    commands.append(["dagster", "code-server", "start", *CODE["codeServerArgs"], "-p", str(CODE["port"])])
    for command in commands:
        parsed([word.replace("/opt/algobot/", f"{ROOT}/") for word in command])
    modules = {command[command.index("-m") + 1] for command in commands if "-m" in command}
    assert modules == {"algobot_assets.definitions"}
    with pytest.raises(click.UsageError):
        parsed(["dagster", "code-server", "start", "--no-such-option"])


def test_ports_and_places_agree():
    (server,) = yaml.safe_load((DEPLOY / "compose" / "workspace.yaml").read_text())["load_from"]
    ports = {int(port) for port in re.findall(r'"-p", "(\d+)"', DOCKERFILE)}
    assert ports == {server["grpc_server"]["port"], CODE["port"], int(re.search(r"^EXPOSE (\d+)", DOCKERFILE, re.M)[1])}
    assert server["grpc_server"]["host"] in COMPOSE["services"]
    webserver = COMPOSE["services"]["webserver"]
    port = webserver["command"][webserver["command"].index("-p") + 1]
    assert webserver["ports"] == [f"127.0.0.1:{port}:{port}"] and port in webserver["healthcheck"]["test"][-1]
    inside = {volume.split(":")[1] for volume in webserver["volumes"]}
    for service in ("webserver", "daemon"):
        command = COMPOSE["services"][service]["command"]
        assert command[command.index("-w") + 1] in inside
    assert f"{HOME}/dagster.yaml" in inside and VALUES["global"]["dagsterHome"] == HOME
    shown = VALUES["dagsterWebserver"]
    assert shown["service"]["port"] == shown["readinessProbe"]["httpGet"]["port"]
    for volume in webserver["volumes"]:
        source = volume.split(":")[0]
        assert source in COMPOSE["volumes"] or (DEPLOY / "compose" / source).exists()


def test_secrets_are_named_and_never_written():
    text = "\n".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    assert not re.search(r"://[^\s:/]+:(?!\$\{)[^\s@]+@", text), "a URL with a password in it"
    assert not re.search(r"(?i)password\s*[:=]\s*[\"']?(?!\$\{)[a-z0-9]", text.replace("PasswordSecret: false", ""))
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    for part in (CODE, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        assert part["envSecrets"] == [{"name": "algobot-database"}]


def test_variables_are_settings():
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    text = "\n".join(path.read_text() for path in DEPLOY.rglob("*") if path.is_file())
    # where Celery's broker is asked for by Dagster's own configuration
    assert set(re.findall(rf"{PREFIX}[A-Z_]+", text)) - {"ALGOBOT_BROKER_URL"} <= known
    from algobot_assets.defs.instance.storage import ENVIRONMENT

    for name, value in ENVIRONMENT.items():  # what the storage class sets, where the chart's storage stands in for it
        assert {"name": name, "value": value} in CODE["env"]


def test_every_service_that_lasts_has_a_health_check_and_limits():
    for name, service in COMPOSE["services"].items():
        if name == "migrate":
            continue
        assert name == "code" or service["healthcheck"]["test"], name  # the image has the code server's
        assert service["mem_limit"], name
    for part in (CODE, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        assert part["resources"]["requests"] and part["resources"]["limits"]["memory"]
        assert part["podSecurityContext"]["runAsNonRoot"]
    assert COMPOSE["services"]["postgres"]["image"] == "postgres:18"


def test_the_chart_knows_every_value():
    pinned = re.search(r"^dagster==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert f"--version {pinned}" in (DEPLOY / "kubernetes" / "values.yaml").read_text()
    for path, names in CHART.items():
        part = VALUES
        for name in filter(None, path.split(".")):
            part = part[name]
        assert set(part) <= set(names.split()), path
    assert set(CODE) <= set(DEPLOYMENT.split())


def instance_of_the_chart() -> dict[str, Any]:
    """dagster.yaml as the chart makes it of the values."""
    postgres = VALUES["postgresql"]
    database = {
        "postgres_db": {
            "username": postgres["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": postgres["postgresqlHost"],
            "db_name": postgres["postgresqlDatabase"],
            "port": postgres["service"]["port"],
            "params": postgres["postgresqlParams"],
            "scheme": postgres["postgresqlScheme"],
        }
    }
    daemon = VALUES["dagsterDaemon"]
    coordinator = daemon["runCoordinator"]["config"]["customRunCoordinator"]
    monitoring = {re.sub("([A-Z])", r"_\1", k).lower(): v for k, v in daemon["runMonitoring"].items()}
    return {
        "storage": {"postgres": database},  # the chart writes its three parts one by one
        "run_coordinator": coordinator,
        "run_monitoring": monitoring,
        "run_retries": daemon["runRetries"],
        "telemetry": VALUES["telemetry"],
        "retention": {
            re.sub("([A-Z])", r"_\1", k).lower(): {"purge_after_days": v["purgeAfterDays"]}
            for k, v in VALUES["retention"].items()
            if k != "enabled"
        },
        **VALUES["additionalInstanceConfig"],
    }


def test_dagster_takes_the_instance_and_it_behaves_like_the_projects(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "of the secret")
    made = instance_of_the_chart()
    checked = process_config(dagster_instance_config_schema(), made)
    assert checked.success, checked.errors
    ours = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    coordinator = made["run_coordinator"]
    assert {k: coordinator[k] for k in ("module", "class")} == ours["run_coordinator"]
    assert hasattr(importlib.import_module(coordinator["module"]), coordinator["class"])
    assert made["retention"] == ours["retention"] and made["freshness"] == ours["freshness"]
    for concurrency in (made["concurrency"], ours["concurrency"]):
        concurrency["runs"].pop("max_concurrent_runs")  # as many as there are cores
    assert made["concurrency"] == ours["concurrency"]
    assert made["run_retries"] == ours["run_retries"] and made["run_monitoring"]["enabled"]
    # purging and health look for Dagster's tables under the name of the settings
    assert VALUES["postgresql"]["postgresqlDatabase"] == Settings.model_fields["dagster_database"].default


def test_the_launcher_of_pods_takes_its_configuration():
    launcher = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: pip install -e '.[k8s]'")
    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    config = {
        "service_account_name": "dagster",
        "instance_config_map": "instance",
        "dagster_home": HOME,
        "load_incluster_config": True,
        "image_pull_policy": given["imagePullPolicy"],
        "resources": given["resources"],
        "security_context": given["securityContext"],
        "fail_pod_on_run_failure": given["failPodOnRunFailure"],
        "run_k8s_config": {re.sub("([A-Z])", r"_\1", k).lower(): v for k, v in given["runK8sConfig"].items()},
    }
    checked = process_config(dg.Shape(launcher.K8sRunLauncher.config_type()), config)
    assert checked.success, checked.errors
