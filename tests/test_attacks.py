"""A live gateway under attack, at small sizes; siege.py does the same at full size."""

from __future__ import annotations

import json

import siege
from conftest import Live
from gateway_kit import until


def test_more_callers_than_it_takes_are_each_told_something(live: Live) -> None:
    house = live.house
    told = siege.crowd(house, 400)
    assert told["pong"] >= 100
    assert told["busy"] >= 100
    until(lambda: siege.ask(house, {"ping": True})["status"] == "pong", "room again")
    siege.is_well(house)


def test_without_a_descriptor_left_callers_wait_and_then_all_is_well(live: Live) -> None:
    house, gateway, _ = live
    siege.is_well(house)
    assert siege.no_descriptors(house, gateway) > 0
    siege.is_well(house)


def test_bytes_of_all_sorts_cost_bounded_memory_and_nobody_else_anything(live: Live) -> None:
    house, gateway, _ = live
    siege.is_well(house)
    before = siege.memory(gateway)
    siege.noise(house, 10 * siege.MIB, 30)
    assert siege.memory(gateway, "VmHWM") < before + 200
    siege.is_well(house)


def test_a_model_without_end_and_errors_that_steer_terminals_are_kept_small_and_plain(live: Live) -> None:
    house, gateway, held = live
    held.text = "x" * 3_000_000 + "\x1b[2J"
    accepted, word = gateway.ask(to="testchat:1", prompt="hi")
    assert accepted["status"] == "accepted"
    assert word["status"] == "delivered"
    assert len(word["reply"]) < 66_000
    shown = house.command("log", check=0).stdout + house.command("log", "--json", check=0).stdout
    assert "\x1b" not in shown
    assert [entry["status"] for entry in gateway.ask(to="nosuch:1", text="x")] == ["accepted", "undelivered"]


def test_a_small_soak_leaves_memory_and_descriptors_as_they_were(live: Live) -> None:
    house, gateway, _ = live
    seen = siege.soak(house, gateway, 2_000, lambda _: None)
    (_, _, first), (_, _, last) = seen[1], seen[-1]
    assert last <= first + 2
    assert seen[-1][1] < seen[1][1] + 60, json.dumps(seen)
