"""What stands in examples/ is what the program, systemd, cron and the container tools take, and its parts agree.

The host's commands of the READMEs are run as they are printed, under a real systemd; no Docker daemon and no cluster is
needed: what their files say is held together here, and a gateway is put into a mount namespace as a container's is.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen
from zoneinfo import ZoneInfo

import pytest
import yaml
from editor_kit import as_editor_reads
from gateway_kit import PATIENCE, SCRIPTS, until
from jsonschema import Draft202012Validator
from machine_kit import ROOT, USERS, Chat, Machine, need
from prometheus_client.parser import text_string_to_metric_families
from ssh_kit import SSH, SSHD, free_port, key_line, need_sshd, with_values

from bub_cron.paths import find_paths
from bub_cron.reminders import json_schema, load, parse, suspicions
from bub_cron.schedule import fire_times, left_out
from bub_cron.trigger import tick
from bub_cron.trigger.ledger import Ledger
from bub_cron.trigger.machine import find_triggers
from bub_cron.wire import iso

EXAMPLES = ROOT / "examples"
FILES = [
    "reminders.yaml",
    "days.yaml",
    "laptop.yaml",
    "team-chat.yaml",
    "server/reminders.yaml",
    "kubernetes/reminders.yaml",
]
SERVER, CONTAINER, POD = EXAMPLES / "server", EXAMPLES / "container", EXAMPLES / "kubernetes"


def assignments(text: str) -> dict[str, str]:
    """Return what a file of assignments, or the Environment= lines of a unit, set."""
    lines = [line.removeprefix("Environment=") for line in text.splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines) if name.isupper()}


def values(unit: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def commands_of_root(readme: Path) -> list[str]:
    """Return the commands of a README that root is to run on the host, in order, without those that need more than that.

    Those are pip (the tests have an environment), an editor and a Docker daemon.
    """
    blocks = re.findall(r"```console\n(.*?)```", readme.read_text(), re.DOTALL)
    [block] = [block for block in blocks if "install" in block]
    lines = [line.removeprefix("# ") for line in block.splitlines()]
    return [line for line in lines if not line.startswith(("python3 -m venv", "editor", "docker"))]


# --- The reminders


@pytest.mark.parametrize("name", FILES)
def test_the_parser_and_the_schema_take_every_file(name: str) -> None:
    assert load(str(EXAMPLES / name))
    Draft202012Validator(json_schema()).validate(as_editor_reads((EXAMPLES / name).read_text()))


def test_the_days_that_people_mean() -> None:
    """Bins, taxes, work days, a school term, a vacation and a birthday, as `next` and `check` show them."""
    path = str(EXAMPLES / "days.yaml")
    now = int(datetime(2026, 11, 26, 12, 0, tzinfo=UTC).timestamp())
    reminders = {reminder.name: reminder for reminder in load(path)}

    def days(name: str, count: int, form: str = "%a %Y-%m-%d %H:%M") -> list[str]:
        found = itertools.islice(fire_times(reminders[name].schedule, now, now + 500 * 86400), count)
        return [datetime.fromtimestamp(at, ZoneInfo("Europe/Berlin")).strftime(form) for at in found]

    assert days("paper-bin", 3) == ["Tue 2026-12-01 19:00", "Tue 2026-12-15 19:00", "Tue 2026-12-29 19:00"]
    assert days("taxes", 3) == ["Thu 2026-12-31 10:00", "Wed 2027-03-31 10:00", "Wed 2027-06-30 10:00"]
    assert days("standup", 24, "%m-%d")[-6:] == ["12-23", "01-04", "01-05", "01-06", "01-07", "01-08"]
    assert days("lunch-box", 21, "%m-%d")[-3:] == ["01-04", "01-05", "01-06"]
    assert days("plants", 9, "%m-%d") == ["12-26", "12-29", "01-01"]
    assert days("pills", 99)[-1] == "Sun 2026-12-06 08:00"
    assert days("birthday", 1) == ["Sun 2027-03-14 09:00"]
    why = [(datetime.fromtimestamp(out.instant, UTC).strftime("%m-%d"), out.why)
           for out in left_out(reminders["standup"].schedule, now, now + 40 * 86400)]  # fmt: skip
    assert ("12-25", "holidays: Erster Weihnachtstag") in why
    assert ("12-28", "vacation") in why
    assert suspicions(list(reminders.values()), now) == []


def test_no_file_is_left_out() -> None:
    others = {"container/compose.yaml", "kubernetes/gateway.yaml", "kubernetes/kustomization.yaml"}
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.yaml")} == {*FILES, *others}


def test_each_file_shows_what_it_is_for() -> None:
    laptop = load(str(EXAMPLES / "laptop.yaml"))
    assert {reminder.catch_up for reminder in laptop} == {"latest", "all"}
    assert len({reminder.grace for reminder in laptop}) >= 4
    team: list[dict[str, Any]] = [reminder.content() for reminder in load(str(EXAMPLES / "team-chat.yaml"))]
    assert len({content["to"] for content in team}) >= 3
    assert any("thread_id" in content.get("context", {}) for content in team)
    assert any(content.get("quiet") for content in team)


# --- The crontab


def entries(crontab: Path) -> list[str]:
    lines = crontab.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_shell_finds_the_program_of_the_crontab_in_the_users_home(tmp_path: Path) -> None:
    [line] = entries(EXAMPLES / "crontab")
    *fields, command = line.split(" ", 5)
    assert fields == ["*"] * 5
    assert "%" not in command, "cron would make a newline of it"
    home = tmp_path / "a home"
    (home / ".local" / "bin").mkdir(parents=True)
    (home / ".local" / "bin" / "bub-cron").symlink_to(SCRIPTS / "bub-cron")
    done = subprocess.run(
        ["/bin/sh", "-c", command], env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (66, "")
    assert f"{home}/.bub/reminders.yaml" in done.stderr, "a tick that ran, and has no file yet"


def test_doctor_reads_the_paths_that_stand_above_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / "crontab").read_text().replace("# BUB_HOME=", "BUB_HOME=")
    (tmp_path / "crontab.txt").write_text(text)
    (tmp_path / "crontab").write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path}/crontab.txt\n")
    (tmp_path / "crontab").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [trigger] = find_triggers()
    assert trigger.places.home == "/srv/bub"
    assert trigger.serves(find_paths({"BUB_HOME": "/srv/bub"}))


# --- The server


def test_systemd_finds_nothing_wrong_with_the_units_and_their_drop_ins(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for example, folders in (("server", [SERVER]), ("container", [CONTAINER / "host"]), ("ssh", [SSH])):
        there = tmp_path / example
        shutil.copytree(ROOT / "systemd", there)
        for folder in folders:
            shutil.copytree(folder, there, dirs_exist_ok=True)
        units = sorted(map(str, there.glob("bub-*.service"))) + sorted(map(str, there.glob("bub-*.timer")))
        done = subprocess.run(["systemd-analyze", "--system", "verify", *units], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_servers_gateway_is_little_exposed() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=29"]
    done = subprocess.run([*command, str(SERVER / "bub-gateway.service")], capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't judge a file")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_servers_units_agree_on_the_user_and_the_paths() -> None:
    gateway, ticks = (SERVER / "bub-gateway.service").read_text(), (ROOT / "systemd" / "bub-cron.service").read_text()
    paths = find_paths(assignments((SERVER / "paths.env").read_text()))
    assert values(gateway, "User") == values(ticks, "User") == ["bub"]
    assert values(ticks, "ReadWritePaths") == [paths.state]
    assert assignments(ticks)["BUB_HOME"] == paths.home, "what a tick without the drop-in would take"
    [state] = values(gateway, "StateDirectory")
    assert {f"/var/lib/{name}" for name in state.split()} == {paths.home, paths.state}
    assert f'u bub - "Bub" {paths.home}\n' in (SERVER / "sysusers.conf").read_text()
    assert assignments(gateway)["HOME"] == paths.home
    assert paths.file == "/etc/bub/reminders.yaml"


# --- The container


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CONTAINER / "compose.yaml").read_text())["services"]["gateway"]
    return found


DROP_IN = (CONTAINER / "host" / "bub-cron.service.d" / "container.conf").read_text()


def users() -> dict[str, int]:
    found = re.findall(r"^u (\S+) (\d+)", (CONTAINER / "host" / "sysusers.conf").read_text(), re.MULTILINE)
    return {name: int(uid) for name, uid in found}


def copied(dockerfile: Path) -> list[str]:
    lines = re.findall(r"^COPY (.*)$", dockerfile.read_text(), re.MULTILINE)
    return [word for line in lines for word in line.split()[:-1]]


def test_both_sides_of_the_container_agree(compose: dict[str, Any]) -> None:
    inside, outside = find_paths(compose["environment"]), find_paths(assignments(DROP_IN))
    assert inside.socket == outside.socket
    mounts = {mount["target"]: mount for mount in compose["volumes"]}
    shared = mounts[os.path.dirname(inside.socket)]
    assert (shared["type"], shared["source"]) == ("bind", os.path.dirname(outside.socket))
    assert not shared["bind"]["create_host_path"], "it would be root's"
    assert mounts[inside.home]["type"] == "volume"
    assert inside.state.startswith(inside.home), "the inbox is on the volume"
    assert not {inside.state, inside.home} & {outside.state, outside.home}, "each side has its own store"
    assert values(DROP_IN, "StateDirectory") == [outside.state.removeprefix("/var/lib/")]
    assert values(DROP_IN, "ReadWritePaths") == [""], "the unit's own aren't there, and it would not start"


def test_the_users_of_the_container_agree(compose: dict[str, Any]) -> None:
    [account] = values(DROP_IN, "User")
    assert compose["environment"]["BUB_CRON_ALLOW_UIDS"] == str(users()[account])
    gateway = users()["bub-gateway"]
    assert compose["user"] == f"{gateway}:{gateway}"
    assert re.findall(r"--uid (\d+)|-o (\d+)|USER (\d+)", (CONTAINER / "Dockerfile").read_text()) == [
        (str(gateway), "", ""), ("", str(gateway), ""), ("", "", str(gateway))
    ]  # fmt: skip
    tmpfiles = (CONTAINER / "host" / "tmpfiles.conf").read_text()
    assert re.findall(r"^d (.*)$", tmpfiles, re.MULTILINE) == [f"/run/bub-cron 0750 bub-gateway {account}"]


def test_the_image_is_made_of_what_there_is(compose: dict[str, Any]) -> None:
    dockerfile = (CONTAINER / compose["build"]["context"] / compose["build"]["dockerfile"]).resolve()
    assert dockerfile == CONTAINER / "Dockerfile"
    assert copied(dockerfile)
    for name in copied(dockerfile):
        assert (CONTAINER / compose["build"]["context"] / name).exists(), name


# --- The pod


def test_the_containers_of_the_pod_agree() -> None:
    pod = yaml.safe_load((POD / "gateway.yaml").read_text())["spec"]
    assert pod["replicas"] == 1
    spec = pod["template"]["spec"]
    gateway, ticks, metrics = spec["containers"]
    told = [{entry["name"]: entry["value"] for entry in container["env"]} for container in (gateway, ticks)]
    assert told[0] == told[1]
    assert gateway["image"] == ticks["image"] == metrics["image"]
    paths = find_paths(told[0])
    mounts = [{mount["mountPath"]: mount for mount in container["volumeMounts"]} for container in (gateway, ticks)]
    # The socket in a directory that the gateway makes itself, on the emptyDir of both.
    shared = os.path.dirname(os.path.dirname(paths.socket))
    assert mounts[0][shared] == mounts[1][shared]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes[mounts[0][shared]["name"]] == {"name": "socket", "emptyDir": {}}
    # Both stores on the claim.
    assert mounts[0][paths.home] == mounts[1][paths.home]
    [claim] = pod["volumeClaimTemplates"]
    assert mounts[0][paths.home]["name"] == claim["metadata"]["name"]
    assert paths.state.startswith(paths.home)
    # What serves the metrics sees no more than their directory, and Prometheus is told where.
    [served] = metrics["volumeMounts"]
    assert served == {**mounts[1][metrics["command"][-1]], "readOnly": True}
    [port] = metrics["ports"]
    assert metrics["command"][3] == str(port["containerPort"])
    asked = pod["template"]["metadata"]["annotations"]
    assert (asked["prometheus.io/port"], asked["prometheus.io/path"]) == (metrics["command"][3], "/metrics.txt")
    # One user, so the gateway lets the tick in without more.
    assert all("runAsUser" not in container["securityContext"] for container in (gateway, ticks))
    assert "BUB_CRON_ALLOW_UIDS" not in told[0]
    assert f"USER {spec['securityContext']['runAsUser']}:" in (POD / "Dockerfile").read_text()
    # What the tick reads, from ConfigMaps that exist, by the names that they have there; no subPath, which never changes.
    made = yaml.safe_load((POD / "kustomization.yaml").read_text())
    maps = {one["name"]: one["files"] for one in made["configMapGenerator"]}
    assert made["generatorOptions"]["disableNameSuffixHash"]
    for path in (paths.file, ticks["command"][-1]):
        mount = mounts[1][os.path.dirname(path)]
        assert "subPath" not in mount
        files = maps[volumes[mount["name"]]["configMap"]["name"]]
        assert files == [os.path.basename(path)]
        assert (POD / files[0]).exists()
    assert copied(POD / "Dockerfile") == []


def test_the_pods_crontab_runs_the_tick_each_minute() -> None:
    line, of_metrics = entries(POD / "crontab")
    *fields, command = line.split(" ", 5)
    assert command == "bub-cron tick"
    assert of_metrics.split(" ")[:5] == fields
    [reminder] = parse(f"reminders: {{a: {{cron: '{' '.join(fields)}', to: 'a:b', text: x}}}}".encode(), "crontab")
    assert reminder.schedule == parse(b"reminders: {a: {cron: '* * * * *', to: 'a:b', text: x}}", "x")[0].schedule


def test_a_configmap_that_is_swapped_counts_from_the_next_tick(tmp_path: Path) -> None:
    """As the kubelet does it: a new directory, and one rename of the link that all files lead through."""
    mount = tmp_path / "etc"
    mount.mkdir()

    def swap(version: str, reminders: str) -> None:
        (mount / f"..{version}").mkdir()
        (mount / f"..{version}" / "reminders.yaml").write_text(reminders)
        (mount / "..data_tmp").symlink_to(f"..{version}")
        (mount / "..data_tmp").rename(mount / "..data")

    swap("1", "reminders: {old: {every: 1m, to: 'a:b', text: x}}")
    (mount / "reminders.yaml").symlink_to("..data/reminders.yaml")
    paths = find_paths({"BUB_HOME": str(tmp_path / "home"), "BUB_CRON_FILE": str(mount / "reminders.yaml")})

    def tick_at(now: float) -> set[str]:
        tick.run(paths, now)
        with closing(Ledger(paths.ledger)) as ledger:
            return {row["name"] for row in ledger.db.execute("SELECT name FROM reminders")}

    now = time.time()
    assert set(tick_at(now)) == {"old"}
    swap("2", "reminders: {new: {every: 1m, to: 'a:b', text: x}}")
    shutil.rmtree(mount / "..1")
    assert set(tick_at(now + 60)) == {"new"}


# --- For real


@pytest.fixture
def machine() -> Iterator[Machine]:
    need("/lib/systemd/systemd", "systemctl", "systemd-sysusers", "systemd-tmpfiles", "nsenter", "setpriv")
    made = Machine(systemd=True, also_own=("/var/lib", "/opt"))
    made.run("ln", "-s", SCRIPTS.parent, "/opt/bub")
    made.run("sed", "-i", "/^bub:/d", "/etc/passwd", "/etc/group", "/etc/shadow")  # the examples make their users
    yield made
    print(made.run("journalctl", "--no-pager", "-n", "40").stdout)
    made.close()


def as_printed(machine: Machine, readme: Path) -> Iterator[str]:
    """Run the commands of a README, and yield each once it has run."""
    for line in commands_of_root(readme):
        done = machine.run("sh", "-euc", f"cd {shlex.quote(str(ROOT))}; {line}")
        print(f"# {line}\n{done.stdout}{done.stderr}", end="")
        yield line


def plugin(machine: Machine) -> dict[str, str]:
    """Put the tests' chat where every user of the machine finds it; return the environment that makes a gateway use it."""
    from demo import expose_plugin

    root = machine.inside("/")
    folders = expose_plugin(Path(__file__).parent / "testchat", root / "srv" / "site")
    path = os.pathsep.join(folders).replace(str(root).rstrip("/"), "")
    return {"PYTHONPATH": path, "BUB_MODEL": "openai:none", "BUB_API_KEY": "none"}


ONE = "reminders:\n  minute: {every: 1m, to: 'testchat:1', text: A minute has begun.}\n"


def said(chat: Path) -> int:
    """Return how many messages the chat has."""
    return chat.read_text().count("A minute has begun.") if chat.exists() else 0


def test_the_server_from_the_printed_commands_to_the_message(machine: Machine) -> None:
    chat = machine.inside("/var/lib/bub/chat.jsonl")
    for line in as_printed(machine, SERVER / "README.md"):
        if line.endswith("/etc/bub/keys.env"):
            keys = plugin(machine) | {"TESTCHAT_OUT": "/var/lib/bub/chat.jsonl"}
            machine.inside("/etc/bub/keys.env").write_text("".join(f"{name}={value}\n" for name, value in keys.items()))
            machine.inside("/etc/bub/reminders.yaml").write_text(ONE)
            # The interpreter of the tests may stand in somebody's home.
            (drop_in := machine.inside("/etc/systemd/system/bub-gateway.service.d")).mkdir()
            (drop_in / "tests.conf").write_text("[Service]\nProtectHome=read-only\n")
    until(machine.inside("/var/lib/bub/cron/cron.sock").is_socket, "the socket")
    for unit in ("bub-gateway.service", "bub-cron.service", "bub-cron@minute.service"):
        shown = machine.run("systemctl", "show", "--property=EnvironmentFiles", unit).stdout
        assert "/etc/bub/paths.env" in shown, unit
    assert machine.run("stat", "-c", "%U %a", "/var/lib/bub", "/etc/bub/keys.env").stdout == "bub 700\nroot 600\n"

    machine.run("systemctl", "start", "bub-cron@minute.service")
    assert said(chat) == 1
    machine.run("systemctl", "start", "bub-cron.service")  # the first tick only looks at the file
    until(lambda: said(chat) >= 2, "the message of the timer", 60 + PATIENCE)
    log = "set -a; . /etc/bub/paths.env; runuser -u bub -- /opt/bub/bin/bub-cron log"
    assert log in (SERVER / "README.md").read_text()
    print(machine.run("sh", "-c", log).stdout)
    doctor = log.replace("bub-cron log", "bub-cron doctor")
    assert doctor in (SERVER / "README.md").read_text()
    print(healthy := machine.run("sh", "-c", doctor).stdout)
    assert "broken" not in healthy, "it has read where the tick is told its places, a file of the drop-in's"
    assert "the agent may make reminders; none has been made in chat yet" in healthy
    assert machine.run("systemctl", "is-failed", "bub-cron.service", check=None).stdout == "inactive\n"

    # As the README says: install's own units in their place.
    done = machine.run("sh", "-c", "set -a; . /etc/bub/paths.env; /opt/bub/bin/bub-cron install --system --force")
    assert "bub-cron.service runs as bub, with /var/lib/bub" in done.stderr
    machine.run("systemctl", "start", "bub-cron.service")

    machine.run("systemctl", "kill", "--signal=KILL", "bub-gateway.service")
    starts = chat.read_text().count('"started"')
    until(lambda: chat.read_text().count('"started"') > starts, "the gateway again")
    before = said(chat)
    again = functools.partial(machine.run, "systemctl", "start", "bub-cron@minute.service", check=None)
    until(lambda: again().returncode == 0, "a message through it")
    assert said(chat) > before


CONTAINED = """\
set -eu
mount --make-rprivate /
mkdir /tmp/shared; mount --bind {shared} /tmp/shared
mkdir /tmp/volume; mount --bind {volume} /tmp/volume
for hidden in /run /var/lib /etc/bub; do mount -t tmpfs -o mode=755 tmpfs $hidden; done
mkdir -p {shared_inside} {home}
mount --bind /tmp/shared {shared_inside}; umount /tmp/shared
mount --bind /tmp/volume {home}; umount /tmp/volume
cd {home}
exec setpriv --reuid={uid} --regid={gid} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \\
    env -i {environment} {gateway}
"""


def test_the_container_from_the_printed_commands_to_the_message(machine: Machine, compose: dict[str, Any]) -> None:
    for line in as_printed(machine, CONTAINER / "README.md"):
        if line.endswith("keys.env"):  # here `docker compose up` follows, which starts the gateway
            machine.run("systemd-run", "--unit=contained", *contained(machine, compose))
    chat = machine.inside("/srv/volume/chat.jsonl")
    machine.inside("/etc/bub/reminders.yaml").write_text(ONE)
    until(machine.inside("/run/bub-cron/cron.sock").is_socket, "the socket, on the host's side")
    machine.run("systemctl", "start", "bub-cron.service")  # the first tick only looks at the file
    until(lambda: said(chat), "the message of the timer", 60 + PATIENCE)
    owners = machine.run("stat", "-c", "%u:%g %a %n", "/run/bub-cron", "/run/bub-cron/cron.sock").stdout
    print(owners)
    assert owners == "10001:10002 750 /run/bub-cron\n10001:10001 666 /run/bub-cron/cron.sock\n"
    assert machine.run("stat", "-c", "%u %a", "/var/lib/bub-cron", "/var/lib/bub-cron/ledger.db").stdout == (
        "10002 700\n10002 600\n"
    )
    assert not machine.inside("/var/lib/bub-cron/inbox.db").exists()
    assert not machine.inside("/srv/volume/cron/ledger.db").exists()
    others_are_refused(machine)


def contained(machine: Machine, compose: dict[str, Any]) -> list[str]:
    """Return the command that runs the gateway as the container would: its user, its environment and its mounts.

    The host's other directories are out of its sight; its volume is the host's /srv/volume.
    """
    paths = find_paths(compose["environment"])
    environment = {
        **plugin(machine), **compose["environment"], "HOME": paths.home, "PATH": "/usr/bin:/bin",
        "TESTCHAT_OUT": f"{paths.home}/chat.jsonl",
    }  # fmt: skip
    [shared] = [mount for mount in compose["volumes"] if mount["type"] == "bind"]
    uid, gid = compose["user"].split(":")
    script = CONTAINED.format(
        shared=shared["source"], shared_inside=shared["target"], volume="/srv/volume", home=paths.home, uid=uid, gid=gid,
        environment=shlex.join(f"{name}={value}" for name, value in environment.items()),
        gateway=f"{SCRIPTS}/bub gateway",
    )  # fmt: skip
    machine.inside("/srv/contained.sh").write_text(script)
    machine.run("install", "-d", "-m", "0700", "-o", uid, "-g", gid, "/srv/volume")
    return ["unshare", "--mount", "sh", "/srv/contained.sh"]


def others_are_refused(machine: Machine) -> None:
    """Who is in the tick's group gets as far as the socket; who isn't, not that far."""
    words = ["/opt/bub/bin/bub-cron", "send", "--to", "testchat:1", "--text", "x", "--socket"]
    who = ["setpriv", "--reuid=10003", "--clear-groups"]
    near = machine.run(*who, "--regid=10002", *words, "/run/bub-cron/cron.sock", check=1)
    assert "rejected: user 10003 may not talk to this gateway" in near.stderr
    far = machine.run(*who, "--regid=10003", *words, "/run/bub-cron/cron.sock", check=69)
    assert "may not be used by this user" in far.stderr


@pytest.fixture
def plain_machine() -> Iterator[Machine]:
    need("nsenter", "setpriv")
    made = Machine(systemd=False, also_own=("/var/lib", "/opt"))
    made.run("ln", "-s", SCRIPTS.parent, "/opt/bub")
    yield made
    made.close()


TICK_AT = """\
import sys
from bub_cron.paths import find_paths
from bub_cron.trigger import tick
sys.exit(tick.run(find_paths(), float(sys.argv[1])))
"""


def write_due(machine: Machine, path: str, as_tick: list[str]) -> None:
    """Write a file whose one reminder is due now, and run the tick before, with its clock set back."""
    minute = int(time.time()) // 60 * 60
    entry = f"{{at: '{iso(minute)}', to: 'testchat:1', text: A minute has begun.}}"
    machine.inside(path).write_text(f"reminders: {{one: {entry}}}\n")
    os.utime(machine.inside(path), (minute - 20, minute - 20))
    machine.run(*as_tick, "/opt/bub/bin/python", "-c", TICK_AT, str(minute - 30))


def test_two_users_talk_through_a_bind_mount(plain_machine: Machine, compose: dict[str, Any]) -> None:
    """The same without systemd, and without waiting for a minute."""
    machine, paths = plain_machine, find_paths(assignments(DROP_IN))
    gateway, ticks = users()["bub-gateway"], users()["bub-tick"]
    machine.run("install", "-d", "-m", "0750", "-o", str(gateway), "-g", str(ticks), os.path.dirname(paths.socket))
    machine.run("install", "-d", "-m", "0700", "-o", str(ticks), "-g", str(ticks), paths.state)
    machine.run("mkdir", "-p", os.path.dirname(paths.file))
    words = ["env", *(f"{name}={value}" for name, value in assignments(DROP_IN).items())]
    as_tick = ["setpriv", f"--reuid={ticks}", f"--regid={ticks}", "--clear-groups", *words]
    write_due(machine, paths.file, as_tick)

    running = subprocess.Popen(machine.command(*contained(machine, compose)), stdin=subprocess.DEVNULL)
    try:
        chat = machine.inside("/srv/volume/chat.jsonl")
        until(machine.inside(paths.socket).is_socket, "the socket, on the host's side")
        machine.run(*as_tick, "/opt/bub/bin/bub-cron", "tick")
        until(lambda: said(chat), "the message")
        shown = machine.run(*as_tick, "/opt/bub/bin/bub-cron", "log", "--json").stdout
        assert '"outcome": "accepted"' in shown, "what became of it is in the container"
        others_are_refused(machine)
    finally:
        running.kill()
        running.wait()


def scraped(machine: Machine, who: list[str], server: list[str]) -> dict[str, float]:
    """Serve the metrics as the pod's container does, at another port, and read them as Prometheus does."""
    command = [word if word != "9464" else str(free_port()) for word in server]
    address = f"http://127.0.0.1:{command[3]}/metrics.txt"
    serving = subprocess.Popen(machine.command(*who, *command), stdin=subprocess.DEVNULL)

    def read() -> tuple[str, str] | None:
        try:
            with urlopen(address, timeout=PATIENCE) as answer:
                return answer.headers["Content-Type"], answer.read().decode()
        except URLError:
            return None

    try:
        kind, text = until(read, "the metrics")
    finally:
        serving.kill()
        serving.wait()
    assert kind == "text/plain", "Prometheus takes no file of an unknown kind"
    return {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}


def test_the_pods_containers_talk_with_volumes_as_the_kubelet_makes_them(plain_machine: Machine) -> None:
    """One user, its group on the volumes, directories that are open to all, and a file behind two links."""
    machine = plain_machine
    spec = yaml.safe_load((POD / "gateway.yaml").read_text())["spec"]["template"]["spec"]
    told = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
    paths, ids = find_paths(told), spec["securityContext"]
    machine.run("install", "-d", "-m", "2777", "-g", str(ids["fsGroup"]), "/run/bub-cron", "/run/bub-metrics")
    machine.run("install", "-d", "-m", "2775", "-g", str(ids["fsGroup"]), paths.home)
    machine.run("mkdir", "-p", f"{os.path.dirname(paths.file)}/..1")
    machine.run("ln", "-s", "..1", f"{os.path.dirname(paths.file)}/..data")
    machine.run("ln", "-s", "..data/reminders.yaml", paths.file)
    environment = {
        **plugin(machine), **told, "HOME": paths.home, "PATH": "/opt/bub/bin:/usr/bin:/bin",
        "TESTCHAT_OUT": f"{paths.home}/chat.jsonl",
    }  # fmt: skip
    who = ["setpriv", f"--reuid={ids['runAsUser']}", f"--regid={ids['runAsGroup']}", f"--groups={ids['fsGroup']}"]
    who += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    who += ["env", f"--chdir={paths.home}", *(f"{name}={value}" for name, value in environment.items())]
    write_due(machine, f"{os.path.dirname(paths.file)}/..1/reminders.yaml", who)

    line, of_metrics = entries(POD / "crontab")
    running = subprocess.Popen(machine.command(*who, *spec["containers"][0]["command"]), stdin=subprocess.DEVNULL)
    try:
        until(machine.inside(paths.socket).is_socket, "the socket")
        machine.run(*who, "/bin/sh", "-c", line.split(" ", 5)[-1])
        until(lambda: said(machine.inside(f"{paths.home}/chat.jsonl")), "the message")
        until(lambda: '"delivered"' in machine.run(*who, "bub-cron", "log", "--json").stdout, "its final outcome")
        modes = machine.run("stat", "-c", "%u %a", paths.socket, paths.ledger, paths.inbox).stdout
        assert modes == f"{ids['runAsUser']} 600\n" * 3
        machine.run(*who, "/bin/sh", "-c", of_metrics.split(" ", 5)[-1])
        assert scraped(machine, who, spec["containers"][2]["command"])["bub_cron_gateway_up"] == 1
    finally:
        running.kill()
        running.wait()


# --- Two hosts

SSHD_CONFIG = """\
Include /etc/ssh/sshd_config.d/*.conf
ListenAddress 127.0.0.1
Port {port}
HostKey /srv/host-key
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
"""
# Connects, asks, and prints what it hears; it fails if the connection is reset.
ASK = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1]); s.sendall(b'?\\n')\n"
ASK += "print(s.recv(999))"


class GatewayHost:
    """The gateway's host of examples/ssh, with an sshd that has the example's Match block."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.port = free_port()
        machine.run("install", "-d", "-o", "bub", "-g", "bub", "-m", "0700", "/var/lib/bub")
        self.chat = Chat(machine, "bub", "/var/lib/bub")
        machine.run("mkdir", "-p", "/etc/bub", "/etc/ssh/sshd_config.d", "/run/sshd")
        [line] = [line for line in (SSH / "README.md").read_text().splitlines() if line.startswith("# cp ")]
        machine.run("sh", "-euc", f"cd {shlex.quote(str(ROOT))}; {line.removeprefix('# ')}")
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/srv/host-key")
        self.host_key = machine.inside("/srv/host-key.pub").read_text()
        machine.inside("/srv/sshd_config").write_text(SSHD_CONFIG.format(port=self.port))
        self.log = machine.inside("/srv/sshd.log")
        also = {**self.chat.gateway_environment, "BUB_HOME": "/var/lib/bub", "TESTCHAT_INBOX": "/home/bub/other.sock"}
        gateway = machine.command(SCRIPTS / "bub", "gateway", user="bub", also=also)
        sshd = machine.command("sh", "-c", f"exec {SSHD} -D -e -f /srv/sshd_config 2>/srv/sshd.log")
        self._running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for command in (gateway, sshd)]
        until(self.log.exists, "sshd")
        until(lambda: "Server listening" in self.log.read_text(), "sshd")
        self.chat.wait_for_gateway(1)

    def let_in(self, line: str) -> None:
        self.machine.inside("/etc/bub/tunnel-authorized-keys").write_text(line)

    def close(self) -> None:
        print(self.log.read_text())
        for running in self._running:
            running.kill()
            running.wait()
        self.machine.close()


@pytest.fixture
def gateway_host() -> Iterator[GatewayHost]:
    need_sshd()
    need("nsenter", "setpriv")
    made = GatewayHost(Machine(systemd=False, also_own=("/var/lib", "/opt")))
    yield made
    made.close()


def test_a_gateway_on_another_host_from_the_printed_commands_to_the_message(
    gateway_host: GatewayHost, machine: Machine
) -> None:
    settings = machine.inside("/etc/bub/tunnel.conf")
    as_tick = ["runuser", "-u", "bub", "--", "env", "BUB_HOME=/var/lib/bub", "BUB_CRON_FILE=/etc/bub/reminders.yaml"]
    for line in as_printed(machine, SSH / "README.md"):
        if "ssh-keygen" in line:
            public = machine.inside("/var/lib/bub/tunnel-key.pub").read_text()
            gateway_host.let_in(key_line(public))
            machine.inside("/etc/bub/tunnel-hosts").write_text(
                f"[127.0.0.1]:{gateway_host.port} {gateway_host.host_key}"
            )
            text = with_values(settings.read_text(), HostName="127.0.0.1")
            settings.write_text(f"{text}    Port {gateway_host.port}\n")
            write_due(machine, "/etc/bub/reminders.yaml", as_tick)
    uid = int(machine.run("id", "-u", "bub").stdout)
    assert uid != USERS["bub"], "the gateway sees the user of its own host"
    here = machine.inside("/run/bub-tunnel/cron.sock")
    until(here.is_socket, "the forwarded socket")
    modes = machine.run("stat", "-c", "%u %a", "/run/bub-tunnel", "/run/bub-tunnel/cron.sock").stdout
    assert modes == f"{uid} 700\n{uid} 600\n"
    machine.run("systemctl", "start", "bub-cron.service")
    until(gateway_host.chat.times, "the message")
    shown = gateway_host.chat.bub_cron("log", "--json", BUB_HOME="/var/lib/bub")
    assert '"delivered"' in shown

    # The connection breaks, and comes back by itself.
    before = here.stat().st_ino
    machine.run("systemctl", "kill", "--signal=KILL", "bub-tunnel.service")
    until(lambda: here.exists() and here.stat().st_ino != before, "the forwarded socket again")
    send = [*as_tick, "/opt/bub/bin/bub-cron", "send", "--to", "testchat:1", "--text", "x"]
    machine.run(*send, "--socket", "/run/bub-tunnel/cron.sock")

    # What the Match block does without the options of the key's line.
    gateway_host.let_in(public)
    ask = [*as_tick, "/opt/bub/bin/python", "-c", ASK]
    ssh = [*as_tick, "ssh", "-F", "/srv/tunnel.conf", "-N", "-f"]
    machine.inside("/srv/tunnel.conf").write_text(re.sub(".*LocalForward.*", "", settings.read_text()))
    for local, path in ("inside", "/bub/cron/cron.sock"), ("outside", "/home/bub/other.sock"):
        machine.run(*ssh, "-L", f"/var/lib/bub/{local}.sock:{path}", "bub-gateway")
        heard = machine.run(*ask, f"/var/lib/bub/{local}.sock", check=None).stdout
        assert ("rejected" in heard) is (local == "inside"), heard
    assert gateway_host.machine.inside("/home/bub/other.sock").is_socket()
    assert "connect to /home/bub/other.sock port -2 failed: No such file" in gateway_host.log.read_text()
    machine.run(*ssh, "-R", "/bub/made.sock:/dev/null", "bub-gateway", check=255)
    ran = machine.run(*ssh[:-2], "bub-gateway", "echo", "it ran", check=None)
    assert (ran.returncode != 0, ran.stdout) == (True, "")
