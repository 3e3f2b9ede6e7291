"""How it all stands as OpenMetrics text, for node_exporter's textfile collector.

Invariants:
- Gauges only: then the text is valid in Prometheus' older format too, which is the one that the collector reads.
- Of the reminders only the names are told: no message, no error, no address.
- What could not be looked at has no sample; `bub_cron_needs_fixing` counts it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from bub_cron.errors import MissingExtraError, StoreError
from bub_cron.health.status import Status
from bub_cron.paths import Paths
from bub_cron.pauses import in_force, next_running
from bub_cron.records import Record, last_good, last_records


class Sample(NamedTuple):
    """One value of a gauge; `labels` are (name, value) pairs."""

    gauge: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


_HELP = {
    "gateway_up": "Whether a gateway answers on the socket.",
    "gateway_ready": "Whether that gateway starts firings.",
    "gateway_waiting_firings": "Firings that wait in the gateway.",
    "gateway_running_firings": "Firings that run in the gateway.",
    "stores_readable": "Whether the stores can be read.",
    "last_tick_timestamp_seconds": "When the last tick ran.",
    "due_firings": "Firings that wait for a gateway to take them.",
    "faulty_files": "Reminders files that can't be used as they are.",
    "reminders": "Reminders in the files.",
    "enabled_reminders": "Reminders that are enabled.",
    "paused_reminders": "Reminders that a pause holds back.",
    "last_day_firings": "Firings of the last 24 hours by outcome.",
    "reminder_last_outcome": "Always 1; the label tells where the newest firing of the reminder stands.",
    "reminder_last_good_timestamp_seconds": "When the reminder last worked.",
    "reminder_next_fire_timestamp_seconds": "When the reminder fires next.",
    "needs_fixing": "What needs a human, as `bub-cron status` tells it.",
}
_UNIT = "_seconds"


def metrics(paths: Paths, status: Status) -> bytes:
    """Return the metrics of a status; MissingExtraError where prometheus_client isn't installed."""
    try:
        from prometheus_client.core import GaugeMetricFamily, Metric
        from prometheus_client.openmetrics.exposition import generate_latest
        from prometheus_client.registry import Collector, CollectorRegistry
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this command needs the library prometheus_client: run `{sys.executable} -m pip install prometheus-client`"
        ) from error

    class _Families(Collector):
        def collect(self) -> Iterator[Metric]:
            samples = list(_samples(paths, status))
            for gauge, text in _HELP.items():
                unit = "seconds" if gauge.endswith(_UNIT) else ""
                family = GaugeMetricFamily(f"bub_cron_{gauge}", text, unit=unit)
                for sample in samples:
                    if sample.gauge == gauge:
                        family.add_sample(family.name, dict(sample.labels), sample.value)
                yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families())
    written: bytes = generate_latest(registry)
    return written


def _samples(paths: Paths, status: Status) -> Iterator[Sample]:
    gateway = status.gateway
    yield Sample("gateway_up", gateway is not None)
    if gateway is not None:
        yield Sample("gateway_ready", not status.why_not_ready)
        for count in ("waiting", "running"):
            if isinstance(value := gateway.get(count), int):
                yield Sample(f"gateway_{count}_firings", value)
    yield Sample("faulty_files", status.faulty_files)
    yield Sample("needs_fixing", len(status.attention))
    yield Sample("stores_readable", status.stores_error is None)
    if status.stores_error is None:
        yield from _of_stores(status)
    yield from _of_reminders(paths, status)


def _of_stores(status: Status) -> Iterator[Sample]:
    if status.last_tick is not None:
        yield Sample("last_tick_timestamp_seconds", status.last_tick)
    yield Sample("due_firings", status.due)
    for outcome, count in status.outcomes.items():
        yield Sample("last_day_firings", count, (("outcome", outcome),))


def _of_reminders(paths: Paths, status: Status) -> Iterator[Sample]:
    if status.reminders is None:
        return
    held = {one.name: status.pauses.of(one.name, one.pause_until) for one in status.reminders}
    yield Sample("reminders", len(status.reminders))
    yield Sample("enabled_reminders", sum(one.enabled for one in status.reminders))
    yield Sample("paused_reminders", sum(in_force(pauses, status.now) is not None for pauses in held.values()))
    last: dict[str, Record] = {}
    good: dict[str, float] = {}
    if status.stores_error is None:
        with suppress(StoreError):  # it broke just now: the next look counts it
            last, good = last_records(paths), last_good(paths)
    for one in status.reminders:
        label = ("reminder", one.name)
        if one.name in last:
            yield Sample("reminder_last_outcome", 1, (label, ("outcome", last[one.name].outcome)))
        if one.name in good:
            yield Sample("reminder_last_good_timestamp_seconds", good[one.name], (label,))
        moment = next_running(one.schedule, held[one.name], status.now) if one.enabled else None
        if moment is not None:
            yield Sample("reminder_next_fire_timestamp_seconds", moment, (label,))
