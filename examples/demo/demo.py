"""The main job at work: a reminders file, a tick, a live gateway, and the messages in the chat.

Everything is real but the model (a stand-in, unless BUB_MODEL is set) and the chat (it prints). All files are in a
temporary directory that is removed at the end; the user's ~/.bub is neither read nor written.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from stand_in_model import Messages, StandInModel

HERE = Path(__file__).parent
REMINDERS = """\
defaults:
  to: printing:alice
reminders:
  standup:
    cron: "* * * * *"
    prompt: Summarise what changed in the repository since yesterday.
  pills:
    cron: "* * * * *"
    text: Time for your pills.
  lost:
    cron: "* * * * *"
    to: nosuchchat:bob
    text: This can't arrive, and is not lost in silence.
"""


def stand_in(messages: Messages) -> str:
    return "Two commits since yesterday. (I am a stand-in for a model.)"


def expose_plugin(project: Path, site: Path) -> list[str]:
    """Make a plugin's folder an installed one for whoever has the returned folders on PYTHONPATH."""
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    metadata = site / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    lines = [f"{name} = {target}" for name, target in described["entry-points"]["bub"].items()]
    (metadata / "entry_points.txt").write_text("[bub]\n" + "\n".join(lines) + "\n")
    return [str(site), str(project)]


def run(title: str, command: list[str], environment: dict[str, str]) -> None:
    print(f"\n$ {title}", flush=True)
    subprocess.run(command, env=environment, check=False)


def wait_for(path: Path, gateway: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        if gateway.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"the gateway did not come up:\n{log.read_text()}")
        time.sleep(0.05)


def main() -> None:
    scripts = Path(sys.executable).parent
    bub_cron = str(scripts / "bub-cron")
    real_model = "BUB_MODEL" in os.environ
    model = StandInModel(stand_in).start()
    with tempfile.TemporaryDirectory(prefix="bub-cron-demo-") as directory:
        home = Path(directory)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BUB_CRON_")},
            **({} if real_model else model.environment()),
            "HOME": directory,
            "BUB_HOME": directory,
            "PYTHONPATH": os.pathsep.join(expose_plugin(HERE / "printing_chat", home / "site")),
        }
        if real_model:
            print(f"The model is {os.environ['BUB_MODEL']}; the chat prints what it is sent.")
        else:
            print("The model is a stand-in; the chat prints what it is sent. For a real model:")
            print("  BUB_MODEL=openrouter:openrouter/free BUB_API_KEY=... make demo")
        reminders = home / "reminders.yaml"
        reminders.write_text(REMINDERS)
        print(f"\n$ cat reminders.yaml\n{REMINDERS}", end="")

        # Entries count from the previous tick on, so the first tick has nothing to do and the demo would have to wait
        # for the next minute. Instead, the file is a minute old and the previous tick ran a minute ago.
        a_minute_ago = time.time() - 60
        os.utime(reminders, (a_minute_ago, a_minute_ago))
        previous = "from bub_cron import paths; from bub_cron.trigger import tick; import sys\n"
        previous += "sys.exit(tick.run(paths.find_paths(), float(sys.argv[1])))"
        subprocess.run([sys.executable, "-c", previous, str(a_minute_ago)], env=environment, check=True)

        print("\n$ bub gateway &", flush=True)
        log = home / "gateway.log"
        with log.open("wb") as errors:
            gateway = subprocess.Popen([scripts / "bub", "gateway"], env=environment, cwd=home, stderr=errors)
        try:
            wait_for(home / "cron" / "cron.sock", gateway, log)
            run("bub-cron tick        # cron or a systemd timer runs this each minute", [bub_cron, "tick"], environment)
            wait_until_settled(bub_cron, environment)  # the tick has returned; the gateway goes on by itself
            run("bub-cron fire pills  # the same by hand", [bub_cron, "fire", "pills"], environment)
            run("bub-cron log", [bub_cron, "log"], environment)
        finally:
            gateway.terminate()
            gateway.wait()
            model.stop()


def wait_until_settled(bub_cron: str, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 120
    words = ("due", "accepted", "running", "retrying")
    while time.monotonic() < deadline:
        open_ = [
            subprocess.run([bub_cron, "log", "--json", "--outcome", word], env=environment, capture_output=True).stdout
            for word in words
        ]
        if not any(open_):
            return
        time.sleep(0.2)


if __name__ == "__main__":
    main()
