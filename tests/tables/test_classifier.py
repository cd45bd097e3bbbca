import pytest

from pyoffload import _abi as abi, classifier
from pyoffload.classifier import SUBTABLE, effective, merged
from pyoffload.errors import TableFull
from pyoffload.flowstore import Flow, Subtable


def flow(slot, priority, *, hard_s=0):
    return Flow(slot, 0, 1, priority, b"", 0, 0, hard_s, "", 0, 0, 0, 0)


def test_a_chain_ends_at_the_first_flow_without_timeouts():
    chain = effective([flow(1, 5), flow(2, 9, hard_s=3), flow(3, 1), flow(4, 7, hard_s=1)])
    assert [f.slot for f in chain] == [2, 4, 1]


def test_in_a_merged_chain_the_new_flow_stands_before_the_old_one_of_its_priority():
    old = [flow(1, 9, hard_s=1), flow(2, 5)]
    new = [flow(3, 9, hard_s=1), flow(2, 5)]
    assert [f.slot for f in merged(old, new)] == [3, 1, 2]


def test_a_classifier_has_a_header_for_each_table_and_subtables_by_falling_priority():
    def subtable(number, table):
        return Subtable(number, 0, table, b"\xff" * number, bytes(72), needs_l3=False)

    image = classifier.image([(subtable(1, 2), 10), (subtable(2, 2), 30), (subtable(3, 0), 5)], version=77)
    assert len(image) == (abi.MAX_TABLES + 3) * SUBTABLE.size
    headers = [SUBTABLE.unpack_from(image, table * SUBTABLE.size)[3:] for table in range(abi.MAX_TABLES)]
    assert headers[0] == (32, 1, 77)
    assert headers[2] == (33, 2, 0)
    assert headers[31] == (35, 0, 0)
    assert [SUBTABLE.unpack_from(image, at * SUBTABLE.size)[1:3] for at in (32, 33, 34)] == [
        (3, 5),
        (2, 30),
        (1, 10),
    ]
    assert classifier.subtable_ids(image) == {1, 2, 3}


def test_more_flows_behind_each_other_than_the_datapath_looks_at_are_refused():
    chain = [flow(n, n, hard_s=1) for n in range(abi.MAX_FLOW_CHAIN + 1)]
    classifier.check_chain(chain[1:], b"")
    with pytest.raises(TableFull, match="17 flows"):
        classifier.check_chain(chain, b"")
