"""The main job at work: a reminders file, a tick, a live gateway, the messages in the chat, and a reminder made there.

Everything is real but the model (a stand-in, unless BUB_MODEL is set) and the chat (it prints). All files are in a
temporary directory that is removed at the end; the user's ~/.bub is neither read nor written.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from stand_in_model import Messages, StandInModel, tool_calls

HERE = Path(__file__).parent
REMINDERS = """\
defaults:
  to: printing:alice
  timezone: UTC
reminders:
  standup:
    cron: "{minute} {hour} * * *"    # each day at {hour:02}:{minute:02}, which is now
    prompt: Summarise what changed in the repository since yesterday.
  pills:
    cron: "{minute} {hour} * * *"
    text: Time for your pills.
  lost:
    cron: "{minute} {hour} * * *"
    to: nosuchchat:bob
    text: This can't arrive, and is not lost in silence.
"""
NEXT = """
That was the demo. Its files are gone; nothing outside this directory changed.
Next: your first reminder in your own chat. README.md has the five steps.
They begin with

  pip install .      # into the environment in which your Bub runs"""
ASKED = "Remind me in half a minute to take the cake out."


def stand_in(messages: Messages) -> str | dict[str, object]:
    """Answer as a model would: use the tool that Bub offers it, and tell what it gave."""
    last = messages[-1]
    if last["role"] == "tool":
        told = [line for line in last["content"].splitlines() if line.startswith("Next:")]
        return f"I will. {' '.join(told)}"
    if ASKED in last["content"]:
        return tool_calls(("reminder_add", {"text": "Take the cake out.", "after": "30s"}))
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


def tick_at(moment: float, environment: dict[str, str]) -> None:
    """Run a tick with another time on its clock, so that the demo needn't wait."""
    code = "from bub_cron import paths; from bub_cron.trigger import tick; import sys\n"
    code += "sys.exit(tick.run(paths.find_paths(), float(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", code, str(moment)], env=environment, check=True)


def write_in_chat(path: str, text: str) -> None:
    """Write in alice's chat, and wait for the answer."""
    with socket.socket(socket.AF_UNIX) as chat:
        chat.settimeout(120)
        chat.connect(path)
        chat.sendall(text.encode())
        chat.shutdown(socket.SHUT_WR)
        chat.recv(1)


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
            "PRINTING_CHAT": str(home / "alice.sock"),
        }
        if real_model:
            print(f"The model is {os.environ['BUB_MODEL']}; the chat prints what it is sent.")
        else:
            print("The model is a stand-in; the chat prints what it is sent. For a real model:")
            print("  BUB_MODEL=openrouter:openrouter/free BUB_API_KEY=... make demo")
        # Entries count from the previous tick on, so the first tick would have nothing to do. Instead, the file and the
        # previous tick are of the minute before this one, at which all of its reminders are due.
        this_minute = int(time.time()) // 60 * 60
        text = REMINDERS.format(hour=this_minute // 3600 % 24, minute=this_minute // 60 % 60)
        reminders = home / "reminders.yaml"
        reminders.write_text(text)
        print(f"\n$ cat reminders.yaml\n{text}", end="")
        os.utime(reminders, (this_minute - 40, this_minute - 40))
        tick_at(this_minute - 30, environment)

        print("\n$ bub gateway &", flush=True)
        log = home / "gateway.log"
        with log.open("wb") as errors:
            gateway = subprocess.Popen([scripts / "bub", "gateway"], env=environment, cwd=home, stderr=errors)
        try:
            wait_for(home / "cron" / "cron.sock", gateway, log)
            run("bub-cron tick        # cron or a systemd timer runs this each minute", [bub_cron, "tick"], environment)
            wait_until_settled(bub_cron, environment)  # the tick has returned; the gateway goes on by itself
            run("bub-cron fire pills  # the same by hand", [bub_cron, "fire", "pills"], environment)
            print("\nalice writes to her agent, which has tools for reminders:", flush=True)
            write_in_chat(environment["PRINTING_CHAT"], ASKED)
            run("cat reminders.d/chat.yaml", ["cat", str(home / "reminders.d" / "chat.yaml")], environment)
            tick_at(time.time() + 20, environment)  # or the log would tell of a time without ticks
            print("\n$ bub-cron tick        # a minute later (here its clock is put forward)", flush=True)
            tick_at(time.time() + 90, environment)
            wait_until_settled(bub_cron, environment)
            run("bub-cron log", [bub_cron, "log"], environment)
        finally:
            gateway.terminate()
            gateway.wait()
            model.stop()
    print(NEXT)


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
