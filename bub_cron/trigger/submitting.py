"""Submit what is due to the gateway, and end what is not to be submitted.

Invariants:
- A firing that may have been submitted already is never ended, nor submitted with other content, before the inbox was
  asked for it: over the socket, or in its file, but there only if no live process holds the socket or the inbox.
- Nothing is submitted before its fire time.
- What a gateway accepted and no inbox knows any more ends `unknown`, once.
"""

from bub_cron import errors
from bub_cron.errors import GatewayAbsentError
from bub_cron.pauses import in_force
from bub_cron.trigger import client, firings, pausing
from bub_cron.trigger.firings import Verdict
from bub_cron.trigger.telling import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bub_cron.paths import Paths
    from bub_cron.pauses import Pauses
    from bub_cron.trigger.client import Connection
    from bub_cron.trigger.firings import Firing
    from bub_cron.trigger.ledger import Ledger

FRESH_SECONDS = 60  # those as old or older, when they first can be submitted, are what `catch_up` chooses from
SETTLING_SECONDS = 60  # after which a gateway is asked what became of a firing
MOST_ASKED = 200  # accepted firings whose outcome a tick asks for

_EDITED = "its reminder was removed, disabled, paused or rescheduled before it could be submitted"
_LATE = "its grace was over before a gateway could take it"
_LOST = "the gateway accepted it, and its inbox doesn't know it any more: what became of it is not known"


def submit(ledger: "Ledger", paths: "Paths", now: int) -> list[Trouble]:
    """Submit what is due, and return what went wrong."""
    troubles: list[Trouble] = []
    try:
        with client.Connection(paths.socket) as connection:
            _judge(ledger, lambda ids: _ask_gateway(connection, ids), now, catch_up=True)
            _send(ledger, connection, now, troubles)
            if "alert" in ledger.waiting(now):
                from bub_cron.trigger.alerting import submit_alerts

                troubles += submit_alerts(ledger, connection)
    except GatewayAbsentError as error:
        # Who listens and doesn't answer may have more in memory than its file shows.
        nobody = isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError)
        _judge(ledger, lambda ids: _ask_file(paths, ids) if nobody else {}, now, catch_up=False)
        if waiting := _waiting(ledger, now):
            troubles.append(Trouble(error.exit_status, f"{error}\n{waiting} for it", key=str(error)))
    return troubles


def _waiting(ledger: "Ledger", now: int) -> str:
    """Return what waits for a gateway, in words; "" if nothing does."""
    due, alerts = len(firings.due(ledger, now)), 0
    if "alert" in ledger.waiting(now):
        from bub_cron.trigger.alerting import waiting_alerts

        alerts = waiting_alerts(ledger)
    found = [f"{due} due {'firing' if due == 1 else 'firings'}"] if due else []
    found += [f"{alerts} {'alert' if alerts == 1 else 'alerts'}"] if alerts else []
    return f"{' and '.join(found)} {'waits' if due + alerts == 1 else 'wait'}" if found else ""


def _judge(ledger: "Ledger", ask: "Callable[[list[str]], dict[str, bool]]", now: int, *, catch_up: bool) -> None:
    """Settle the due firings that are not to be submitted, and let the others take edits over.

    `ask` tells which of some ids the inbox has; an id that it leaves out is one that nobody knows of. It is called
    outside of any transaction.
    """
    pauses = pausing.read(ledger)
    doubtful = [
        firing.id
        for firing in firings.due(ledger, now)
        if firing.submitted_at is not None and (firing.changed or _why_not(firing, pauses, now))
    ]
    known = ask(doubtful) if doubtful else {}
    with ledger.transaction():
        # Read again: another tick may have settled some of them meanwhile, or somebody paused some.
        pauses = pausing.read(ledger)
        ours = [one for one in firings.due(ledger, now) if one.submitted_at is None or one.id in known]
        verdicts = {firing: Verdict(firing, "accept") for firing, there in known.items() if there}
        open_ = [firing for firing in ours if firing.id not in verdicts]
        changed = [firing for firing in open_ if firing.changed]
        for firing in changed:
            firing.take_over()
        for firing in open_:
            if verdict := _why_not(firing, pauses, now):
                verdicts[firing.id] = verdict
        if catch_up:
            verdicts |= _superseded([firing for firing in open_ if firing.id not in verdicts], now)
        firings.change_due(ledger, changed)
        firings.settle(ledger, verdicts.values(), now)


def _why_not(firing: "Firing", pauses: "Pauses", now: int) -> Verdict | None:
    if firing.edited:
        return Verdict(firing.id, "skip", "edited", _EDITED)
    if pause := in_force(pauses.of(firing.reminder), now):
        return Verdict(firing.id, "skip", pause.reason, pause.sentence())
    if now > firing.expires:
        return Verdict(firing.id, "miss", "late", _LATE)
    return None


def _superseded(due: "list[Firing]", now: int) -> dict[str, Verdict]:
    """Return what becomes of the firings that catching up leaves out.

    Of the old ones of a reminder that wants the latest alone, all but that, and that as well if a fresh one starts.
    """
    starting: dict[str, Firing] = {}  # they come oldest first
    for firing in due:
        if firing.submitted_at is None and firing.catch_up == "latest":
            starting[firing.reminder] = firing
    return {
        firing.id: Verdict(firing.id, "skip", "superseded", f"{starting[firing.reminder].id} starts in its place")
        for firing in due
        if firing.submitted_at is None
        and firing.catch_up == "latest"
        and firing.fire_time <= now - FRESH_SECONDS
        and firing is not starting[firing.reminder]
    }


def _ask_file(paths: "Paths", ids: list[str]) -> dict[str, bool]:
    """Look the ids up in the inbox's file, unless a live process holds it: what that has in memory isn't there."""
    if client.somebody_holds(paths.socket) or client.somebody_holds(paths.inbox):
        return {}
    from bub_cron.records import known_to_inbox

    known = known_to_inbox(paths.inbox, ids)
    return {} if known is None else {firing: firing in known for firing in ids}


def _ask_gateway(connection: "Connection", ids: list[str]) -> dict[str, bool]:
    from bub_cron.states import IN_INBOX
    from bub_cron.wire import UNKNOWN_ID

    known: dict[str, bool] = {}

    def note(answer: "dict[str, Any]") -> None:
        status = str(answer.get("status"))
        if status in IN_INBOX or status == UNKNOWN_ID:
            known[str(answer.get("id"))] = status != UNKNOWN_ID

    connection.exchange([_question(firing) for firing in ids], note)
    return known


def _question(firing: str) -> bytes:
    return f'{{"status": "{firing}"}}\n'.encode()


def _send(ledger: "Ledger", connection: "Connection", now: int, troubles: list[Trouble]) -> None:
    with ledger.transaction():
        pauses = pausing.read(ledger)
        found = firings.due(ledger, now)
        due = [firing for firing in found if not _why_not(firing, pauses, now) and not firing.changed]
        firings.mark_submitted(ledger, [firing.id for firing in due], now)
        asked = firings.without_outcome(ledger, now - SETTLING_SECONDS, MOST_ASKED)
    answers: list[dict[str, Any]] = []
    lines = [*[firing.line() for firing in due], *map(_question, asked)]
    try:
        connection.exchange(lines, answers.append)
    finally:
        # Also when the gateway went away in the middle: what it answered by then stands.
        troubles += _take_answers(
            ledger, [one for one in answers if one.get("id") not in asked], {firing.id for firing in due}, now
        )
        _take_outcomes(ledger, [one for one in answers if one.get("id") in asked], now)


def _take_answers(ledger: "Ledger", answers: "list[dict[str, Any]]", ids: set[str], now: int) -> list[Trouble]:
    from bub_cron.states import IN_INBOX

    verdicts: list[Verdict] = []
    troubles: list[Trouble] = []
    for answer in answers:
        firing, status = answer.get("id"), str(answer.get("status"))
        error = errors.whole_characters(str(answer.get("error", "")))
        if not isinstance(firing, str) or firing not in ids:
            troubles.append(Trouble(errors.EX_UNAVAILABLE, f"the gateway refused the connection: {error or answer}"))
        elif status in IN_INBOX:
            verdicts.append(Verdict(firing, "accept"))
        elif status == "rejected":
            verdicts.append(Verdict(firing, "reject", "rejected", error))
            troubles.append(Trouble(errors.EX_PROTOCOL, f"the gateway rejected {firing}: {error}"))
        elif status == "busy":
            troubles.append(Trouble(errors.EX_UNAVAILABLE, f"the gateway is busy: {error}", key="busy"))
        else:
            text = f"the gateway answered with a word that this bub-cron doesn't know: {status}"
            troubles.append(Trouble(errors.EX_UNAVAILABLE, text))
    with ledger.transaction():
        firings.settle(ledger, verdicts, now)
    return list({trouble.key: trouble for trouble in troubles}.values())


def _take_outcomes(ledger: "Ledger", answers: "list[dict[str, Any]]", now: int) -> None:
    """Keep the final outcomes of what was accepted before, and end what the inbox has lost."""
    from bub_cron.states import FINAL
    from bub_cron.wire import UNKNOWN_ID

    found = [(str(answer["id"]), str(answer.get("status"))) for answer in answers]
    with ledger.transaction():
        firings.keep_outcomes(ledger, [(firing, status) for firing, status in found if status in FINAL])
        lost = [Verdict(firing, "lose", "lost_record", _LOST) for firing, status in found if status == UNKNOWN_ID]
        firings.settle(ledger, lost, now)
