"""Random flows: what is printed means what was read; and random text never surprises."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings, strategies as st

from pyoffload.flow.format import OPENFLOW10, format_actions, match_facts
from pyoffload.flow.groups_syntax import parse_group
from pyoffload.flow.meters_syntax import parse_meter
from pyoffload.flow.parse import FlowParser
from pyoffload.flow.syntax import FlowSyntaxError


class NoNames:
    def number(self, _name: str, /) -> int | None:
        return None

    def name(self, _ofport: int, /) -> str | None:
        return None


PARSER = FlowParser(NoNames())


def number(bits):
    return st.integers(0, 2**bits - 1)


def masked(value, mask):
    return st.one_of(value, st.tuples(value, mask).map("/".join))


def hexadecimal(bits):
    return number(bits).map(hex)


mac = number(48).map(lambda n: n.to_bytes(6, "big").hex(":"))
ip4 = number(32).map(lambda n: str(IPv4Address(n)))
ip6 = number(128).map(lambda n: str(IPv6Address(n)))
port = masked(number(16).map(str), hexadecimal(16))


def words(**fields):
    """Any of these fields with its values."""
    chosen = [values.map(lambda value, name=name: f"{name}={value}") for name, values in fields.items()]
    return st.lists(st.sampled_from(range(len(chosen))), unique=True).flatmap(
        lambda indexes: st.tuples(*(chosen[index] for index in indexes))
    )


LAYER2 = words(
    in_port=st.integers(1, 1023),
    dl_src=masked(mac, mac),
    dl_dst=masked(mac, mac),
    vlan_tci=masked(hexadecimal(16), hexadecimal(16)),
    metadata=masked(hexadecimal(64), hexadecimal(64)),
    reg0=masked(hexadecimal(32), hexadecimal(32)),
    reg3=masked(hexadecimal(32), hexadecimal(32)),
)
IP = {
    "nw_tos": number(6).map(lambda n: n << 2),
    "nw_ecn": number(2),
    "nw_ttl": number(8),
    "nw_frag": st.sampled_from(["no", "yes", "first", "later", "not_later"]),
}
IP4 = IP | {
    "nw_src": masked(ip4, st.one_of(ip4, st.integers(0, 32).map(str))),
    "nw_dst": masked(ip4, st.one_of(ip4, st.integers(0, 32).map(str))),
}
IP6 = IP | {
    "ipv6_src": masked(ip6, st.one_of(ip6, st.integers(0, 128).map(str))),
    "ipv6_dst": masked(ip6, st.one_of(ip6, st.integers(0, 128).map(str))),
    "ipv6_label": masked(hexadecimal(20), hexadecimal(20)),
}
PORTS = {"tp_src": port, "tp_dst": port}
FLAGS = {"tcp_flags": masked(hexadecimal(12), hexadecimal(12))}
ICMP = {"icmp_type": number(8), "icmp_code": number(8)}
ARP = {
    "arp_op": number(8),
    "arp_spa": masked(ip4, ip4),
    "arp_tpa": masked(ip4, ip4),
    "arp_sha": masked(mac, mac),
    "arp_tha": masked(mac, mac),
}
PROTOCOLS = {
    "ip": IP4,
    "ip,nw_proto=47": IP4,
    "tcp": IP4 | PORTS | FLAGS,
    "udp": IP4 | PORTS,
    "sctp": IP4 | PORTS,
    "icmp": IP4 | ICMP,
    "ipv6": IP6,
    "tcp6": IP6 | PORTS | FLAGS,
    "udp6": IP6 | PORTS,
    "icmp6": IP6 | ICMP,
    "icmp6,icmp_type=135": IP6 | {"nd_target": masked(ip6, ip6), "nd_sll": masked(mac, mac)},
    "arp": ARP,
    "dl_type=0x88cc": {},
}


@st.composite
def matches(draw):
    protocol = draw(st.sampled_from(["", *PROTOCOLS]))
    parts = [*draw(LAYER2), *(draw(words(**PROTOCOLS[protocol])) if PROTOCOLS.get(protocol) else ())]
    return ",".join(draw(st.permutations([*parts, protocol] if protocol else parts)))


SETS = st.one_of(
    mac.map("mod_dl_src:{}".format),
    number(12).map("mod_vlan_vid:{}".format),
    number(3).map("mod_vlan_pcp:{}".format),
    ip4.map("mod_nw_dst:{}".format),
    number(6).map(lambda n: f"mod_nw_tos:{n << 2}"),
    number(2).map("mod_nw_ecn:{}".format),
    number(8).map("mod_nw_ttl:{}".format),
    number(16).map("mod_tp_src:{}".format),
    masked(hexadecimal(64), hexadecimal(64)).map("set_field:{}->metadata".format),
    masked(mac, mac).map("set_field:{}->eth_dst".format),
    masked(hexadecimal(32), hexadecimal(32)).map("set_field:{}->reg2".format),
    hexadecimal(8).map("load:{}->NXM_NX_REG1[8..15]".format),
    hexadecimal(64).map("load:{}->OXM_OF_METADATA[]".format),
    st.sampled_from(
        [
            "strip_vlan",
            "push_vlan:0x8100",
            "dec_ttl",
            "output:1",
            "normal",
            "local",
            "resubmit(,3)",
            "group:2",
        ]
    ),
)
ACTIONS = st.tuples(st.lists(SETS, max_size=6), st.sampled_from([(), ("goto_table:9",)])).map(
    lambda parts: ",".join([*parts[0], *parts[1]])
)


def effect(ops):
    """The operations with runs of sets on one word under one prerequisite put together."""
    runs = []
    for at in range(0, len(ops), 24):
        op, prereq, word = ops[at], ops[at + 1], ops[at + 2]
        mask, value = (int.from_bytes(ops[at + n : at + n + 8], "little") for n in (8, 16))
        if op == 1 and runs and runs[-1][:3] == (1, prereq, word):
            _, _, _, _, before, old = runs.pop()
            mask, value = before | mask, old & ~mask | value
        runs.append((op, prereq, word, ops[at + 4 : at + 8], mask, value))
    return runs


@settings(max_examples=600, deadline=None)
@given(matches(), ACTIONS)
def test_what_is_printed_means_what_was_read(match, actions):
    flow = PARSER.parse(f"{match},actions={actions}")
    again = PARSER.parse(f"{flow.match_text},actions={flow.actions_text}")
    assert (again.key, again.mask) == (flow.key, flow.mask)
    assert again.match_text == flow.match_text
    assert effect(again.ops) == effect(flow.ops)


@settings(max_examples=300, deadline=None)
@given(matches(), ACTIONS)
def test_the_words_of_openflow_1_0_mean_the_same(match, actions):
    flow = PARSER.parse(f"{match},actions={actions}")
    text = format_actions(flow.actions.steps, OPENFLOW10, None, match_facts(flow.key, flow.mask))
    again = PARSER.parse(f"{flow.match_text},actions={text}")
    assert effect(again.ops) == effect(flow.ops)


PIECES = st.sampled_from(
    [
        *'=:,/()[]->+.|x*"# ',
        *(
            "1",
            "0",
            "ip",
            "tcp",
            "nw_src",
            "tp_dst",
            "actions=",
            "output",
            "load",
            "set_field",
            "reg0",
            "resubmit",
        ),
        *("10.0.0.1", "::", "bucket=", "group_id", "type=all", "meter", "kbps", "band=type=drop", "rate"),
    ]
)
READERS = (
    PARSER.parse,
    lambda text: PARSER.parse_filter(text, "dump"),
    lambda text: parse_group(text, NoNames()),
    parse_meter,
)


@settings(max_examples=800, deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join), st.sampled_from(READERS))
def test_any_text_is_read_or_refused_with_its_place(text, read):
    error = None
    try:
        read(text)
    except FlowSyntaxError as caught:
        error = caught
    if error is not None:
        assert error.text == text
        assert 0 <= error.offset <= error.offset + error.length <= len(text)
