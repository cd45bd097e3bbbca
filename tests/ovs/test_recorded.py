"""Our texts against those that Open vSwitch 3.1 printed (test_live.py checks that they are still what it prints)."""

from __future__ import annotations

import pytest

from tests.ovs.recorded import RECORDINGS, line_of, parse

recordings = pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)


@recordings
def test_dumps_read_like_those_of_open_vswitch(recording):
    ours = [line_of(flow, recording.dialect) for flow in parse(recording.flows)]
    assert sorted(ours) == sorted(recording.dump)
    assert len(set(ours)) == len(ours) > 40


@recordings
def test_a_dump_loads_as_the_flows_it_was_made_of(recording):
    flows = {line_of(flow, recording.dialect): flow for flow in parse(recording.flows)}
    for again in parse(recording.dump):
        flow = flows[line_of(again, recording.dialect)]
        assert (again.table, again.priority, again.cookie) == (flow.table, flow.priority, flow.cookie)
        assert (again.idle_timeout, again.hard_timeout) == (flow.idle_timeout, flow.hard_timeout)
        assert (again.key, again.mask) == (flow.key, flow.mask)


@recordings
def test_the_words_a_flow_was_written_in_give_the_same_flow_again(recording):
    for flow in parse(recording.flows):
        head = f"table={flow.table},priority={flow.priority},cookie={flow.cookie:#x}"
        (again,) = parse([f"{head},{flow.match_text},actions={flow.actions_text}"])
        assert (again.key, again.mask) == (flow.key, flow.mask)
        assert sorted(_records(again.ops)) == sorted(_records(flow.ops)), flow.actions_text
        assert _contains(
            again.cache_mask, flow.cache_mask
        )  # an IPv6 address is loaded in halves: each reads the other


def _contains(mask: bytes, part: bytes) -> bool:
    return all(a & b == b for a, b in zip(mask, part, strict=True))


def _records(ops: bytes) -> list[bytes]:
    return [ops[at : at + 24] for at in range(0, len(ops), 24)]
