"""What the ledger has ended is told: an alert through the gateway, a ping to the reminder's monitor.

Invariants:
- What is to be told is noted in the transaction that ends the firing, and crossed out only when a gateway has the alert,
  or the monitor has answered: a tick that is killed in between has lost neither.
- One alert for a reminder and an outcome, until a gateway has accepted a firing of it; and one that it works again, after
  the first good outcome that a gateway tells, unless the gateway has an alert of its own to follow.
- An alert is the same text under the same id whenever it is submitted, so it arrives once.
- A ping's address is in no text that leaves this module.

Loaded only where a firing ends in the ledger, or somebody is to be told.
"""

from bub_cron import errors
from bub_cron.states import ACCEPTED, BAD, GOOD, SKIPPED, sql_list
from bub_cron.trigger.telling import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Row
    from typing import Any

    from bub_cron.trigger.client import Connection
    from bub_cron.trigger.ledger import Ledger

ALERT, PING = "alert", "ping"
PING_SECONDS = 10.0  # that all of a tick's pings may take together
MOST_PINGS = 20  # of a tick, all at the same time
MOST_ALERTS = 200  # of a tick
_ENDED = sql_list(BAD | {SKIPPED})
_COLUMNS = "f.id, f.reminder, f.fire_time, f.content, f.state, f.reason, f.error"


def note(ledger: "Ledger", ended: "Iterable[str]") -> None:
    """Note who is to be told of firings that have just ended in the ledger, in the caller's transaction.

    Of a reminder's firings that end together, the oldest makes the alert, and the newest the ping.
    """
    query = f"SELECT {_COLUMNS} FROM firings f WHERE id = ? AND state IN {_ENDED}"  # noqa: S608
    found = (ledger.db.execute(query, (firing,)).fetchone() for firing in ended)
    rows = sorted((row for row in found if row is not None), key=lambda row: (row["fire_time"], row["id"]))
    noted: set[tuple[str, str]] = set()
    pinged: dict[str, str] = {}
    for row in rows:
        # Most have neither: a look at the text spares them the parser.
        if f'"{ALERT}"' in row["content"] and row["state"] in BAD and (row["reminder"], row["state"]) not in noted:
            noted.add((row["reminder"], row["state"]))
            if _is_news(ledger, row):
                _put(ledger, row["id"], ALERT)
        if f'"{PING}"' in row["content"] and _fields(ledger, row).get("ping"):
            pinged[row["reminder"]] = row["id"]
    for firing in pinged.values():
        _put(ledger, firing, PING)


def note_recoveries(ledger: "Ledger", good: "Iterable[str]") -> None:
    """Note who is to be told that a reminder works again, of accepted firings whose good outcome was just stored."""
    query = f"SELECT {_COLUMNS} FROM firings f WHERE id = ?"  # noqa: S608
    for row in [ledger.db.execute(query, (firing,)).fetchone() for firing in good]:
        about = (row["reminder"], row["fire_time"])
        # What is older than that was told of, or is the gateway's to tell of.
        [since] = ledger.db.execute(
            "SELECT max(fire_time) FROM firings WHERE reminder = ? AND fire_time < ? AND state = 'accepted'"  # noqa: S608
            f" AND outcome IN {sql_list(GOOD | BAD)}",
            about,
        ).fetchone()
        ended = ledger.db.execute(
            f"SELECT {_COLUMNS} FROM firings f WHERE reminder = ? AND fire_time < ? AND fire_time > coalesce(?, -1)"  # noqa: S608
            f" AND state IN {sql_list(BAD)} GROUP BY content",
            (*about, since),
        ).fetchall()
        if _who(ledger, row) and any(_who(ledger, other) for other in ended):
            _put(ledger, row["id"], ALERT)


def _who(ledger: "Ledger", row: "Row") -> str | None:
    """Return whom a firing's alerts go to, None for nobody."""
    from bub_cron.checkers import NONE

    who = _fields(ledger, row).get("alert")
    return None if who == NONE else who


def _put(ledger: "Ledger", firing: str, kind: str) -> None:
    ledger.db.execute("REPLACE INTO tellings (firing, kind, tries) VALUES (?, ?, 0)", (firing, kind))


def _fields(ledger: "Ledger", row: "Row") -> "dict[str, Any]":
    import json

    try:
        fields = json.loads(row["content"])
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ledger.damaged("a firing that has ended", row)
    return fields


def _is_news(ledger: "Ledger", row: "Row") -> bool:
    """Tell whether the firing's alert is the first one of its reminder and outcome since a firing of it was accepted."""
    who = _who(ledger, row)
    if who is None:
        return False
    accepted = "SELECT {}(fire_time) FROM firings WHERE reminder = ? AND state = 'accepted' AND fire_time {} ?"
    about = (row["reminder"], row["fire_time"])
    [before] = ledger.db.execute(accepted.format("max", "<"), about).fetchone()
    [after] = ledger.db.execute(accepted.format("min", ">"), about).fetchone()
    others = ledger.db.execute(
        f"SELECT {_COLUMNS} FROM firings f WHERE reminder = ? AND state = ? AND id <> ?"  # noqa: S608
        " AND fire_time > coalesce(?, -1) AND fire_time < coalesce(?, 1e12) GROUP BY content",
        (row["reminder"], row["state"], row["id"], before, after),
    )
    return all(_who(ledger, other) != who for other in others.fetchall())


def cross_out(ledger: "Ledger", kind: str, ids: "Iterable[str]") -> None:
    """Forget what is told, or given up."""
    ledger.db.executemany("DELETE FROM tellings WHERE kind = ? AND firing = ?", ((kind, firing) for firing in ids))


def _open(ledger: "Ledger", kind: str, most: int) -> "list[Row]":
    return ledger.db.execute(
        f"SELECT {_COLUMNS}, t.tries FROM tellings t JOIN firings f ON f.id = t.firing WHERE t.kind = ?"  # noqa: S608
        " ORDER BY t.tries, f.fire_time LIMIT ?",
        (kind, most),
    ).fetchall()


# --- Alerts


def waiting_alerts(ledger: "Ledger") -> int:
    """Return how many alerts no gateway has yet."""
    return len(_open(ledger, ALERT, MOST_ALERTS))


def submit_alerts(ledger: "Ledger", connection: "Connection") -> list[Trouble]:
    """Submit each alert that is open as a text with an id of its own, and cross out those that the gateway has."""
    from bub_cron.states import IN_INBOX
    from bub_cron.wire import encode

    asked = {str(request["id"]): (row["id"], request) for row, request in _requests(ledger)}
    done: list[str] = []
    troubles: dict[str, Trouble] = {}

    def take(answer: "dict[str, Any]") -> None:
        firing, _ = asked.get(str(answer.get("id")), (None, None))
        status, error = str(answer.get("status")), errors.whole_characters(str(answer.get("error", "")))
        if firing is not None and (status in IN_INBOX or status == "rejected"):
            done.append(firing)
        if status == "rejected":  # it would be rejected again
            trouble = Trouble(errors.EX_PROTOCOL, f"the gateway rejected the alert about {firing}: {error}")
        elif status in IN_INBOX:
            return
        else:
            trouble = Trouble(
                errors.EX_UNAVAILABLE, f"the gateway doesn't take alerts now: {error or status}", key=status
            )
        troubles[trouble.key] = trouble

    try:
        connection.exchange([encode(request) for _, request in asked.values()], take)
    finally:
        # Also when the gateway went away in the middle.
        with ledger.transaction():
            cross_out(ledger, ALERT, done)
    return list(troubles.values())


def _requests(ledger: "Ledger") -> "list[tuple[Row, dict[str, Any]]]":
    from bub_cron.alerts import sentence, works_again
    from bub_cron.wire import Request, iso

    found = []
    for row in _open(ledger, ALERT, MOST_ALERTS):
        fields = {**_fields(ledger, row), "id": row["id"], "fire_time": iso(row["fire_time"])}
        try:
            request = Request(fields, new_id=str, now=0)
            ended = row["state"] != ACCEPTED
            text = sentence(request, row["state"], row["reason"], row["error"]) if ended else works_again(request)
        except (KeyError, StopIteration) as error:
            raise ledger.damaged("a firing that has ended", row) from error
        # No firing's own id ends like this, whatever the reminders are called.
        alert = f"alert-{row['id']}/{row['state']}"
        found.append((row, {"id": alert, "to": fields["alert"], "text": text, "wait": False}))
    return found


# --- Pings


def send_pings(ledger: "Ledger") -> list[Trouble]:
    """Make one POST for each ping that is open, all at once and within `PING_SECONDS`; return what was given up."""
    from bub_cron.trigger.schema import MOST_TRIES

    with ledger.transaction():
        rows = _open(ledger, PING, MOST_PINGS)
        # Before the POST, so that one which kills the tick is not made for ever.
        ledger.db.executemany(
            "UPDATE tellings SET tries = tries + 1 WHERE firing = ? AND kind = 'ping' AND tries < ?",
            ((row["id"], MOST_TRIES) for row in rows),
        )
    tried = [row for row in rows if row["tries"] < MOST_TRIES]
    refusals = _post_all({row["id"]: (str(_fields(ledger, row)["ping"]), row["state"]) for row in tried})
    done, troubles = [], []
    for row in rows:
        refusal = refusals.get(row["id"], "its end was not seen") if row in tried else "its end was not seen"
        if refusal is None or row["tries"] + 1 >= MOST_TRIES:
            done.append(row["id"])
        if refusal is not None and row["tries"] + 1 >= MOST_TRIES:
            text = f"the ping about {row['id']} was given up after {MOST_TRIES} tries: {refusal}"
            troubles.append(Trouble(0, text))
    with ledger.transaction():
        cross_out(ledger, PING, done)
    return troubles


def _post_all(pings: "dict[str, tuple[str, str]]") -> "dict[str, str | None]":
    """POST to each (address, outcome); return by key None, or in a few words why it was not taken."""
    import threading
    import time

    # A wait of urllib's has no end where a name isn't resolved, or an answer comes byte by byte: a thread's has. Those that
    # hang end with the process.
    results: dict[str, str | None] = dict.fromkeys(pings, f"not answered within {PING_SECONDS:g} s")
    told: dict[str, str | None] = {}

    def run(key: str, address: str, outcome: str) -> None:
        told[key] = _post(address, outcome)

    threads = [
        threading.Thread(target=run, args=(key, address, outcome), daemon=True)
        for key, (address, outcome) in pings.items()
    ]
    deadline = time.monotonic() + PING_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return results | told


def _post(ping: str, outcome: str) -> str | None:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    from bub_cron.alerts import ping_address
    from bub_cron.rare_fields import check_address

    try:
        address = ping_address(check_address(ping), outcome)
        request = Request(address, data=outcome.encode(), headers={"User-Agent": "bub-cron"})  # noqa: S310
        with urlopen(request, timeout=PING_SECONDS):  # noqa: S310 - an http or https address, by check_address
            return None
    except HTTPError as error:
        return f"answered {error.code}"
    except URLError as error:
        # Its text may hold the address; that of a system call's error holds none.
        reason = error.reason
        return (reason.strerror if isinstance(reason, OSError) else None) or type(reason).__name__
    except (HTTPException, OSError, ValueError) as error:
        return type(error).__name__
