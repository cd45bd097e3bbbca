"""Words with units: what tc, ip and a person would write is taken, everything else names the word."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from pyoffload import units
from pyoffload.errors import UsageError

MS = 1_000_000
S = 1000 * MS


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("300s", 300 * S),
        ("300", 300 * S),
        ("5m", 300 * S),
        ("5min", 300 * S),
        ("1h", 3600 * S),
        ("1d", 86400 * S),
        ("500ms", 500 * MS),
        ("1.5s", 1500 * MS),
        ("10us", 10_000),
        ("7ns", 7),
        ("0", 0),
        ("2S", 2 * S),
    ],
)
def test_times_take_the_units_of_tc(text, ns):
    assert units.parse_duration(text, "--mac-age") == ns


@pytest.mark.parametrize(
    "text", ["", "s", "-5s", "5 s", "5x", "1e3s", "5ss", "٣s", "1.s", ".5s", "five", "5s ", "1,5s"]
)
def test_what_is_no_time_is_refused_by_name(text):
    with pytest.raises(UsageError) as refused:
        units.parse_duration(text, "--mac-age")
    assert "--mac-age" in refused.value.message
    assert f"'{text}'" in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("text", "size"), [("1500", 1500), ("64kb", 65536), ("64k", 65536), ("2mb", 2 << 20), ("8kbit", 1024)]
)
def test_sizes_count_in_1024_as_tc_does(text, size):
    assert units.parse_size(text, "--size") == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1gbit", 10**9),
        ("100mbit", 10**8),
        ("1kibit", 1024),
        ("1mbps", 8 * 10**6),
        ("42", 42),
        ("1.5kbit", 1500),
    ],
)
def test_rates_count_in_1000_and_bps_is_bytes_as_tc_does(text, rate):
    assert units.parse_rate(text, "--rate") == rate


@pytest.mark.parametrize(("text", "number"), [("65536", 65536), ("256k", 262144), ("1m", 1 << 20)])
def test_counts_of_entries_take_k_and_m(text, number):
    assert units.parse_count(text, "--cache-entries") == number


@pytest.mark.parametrize("text", ["0", "4095", "-1", "10.0", "ten", "", "00010", "\uff11\uff10"])
def test_a_vlan_is_1_to_4094(text):
    with pytest.raises(UsageError, match="--vlan"):
        units.parse_vlan(text, "--vlan")


def test_vlan_lists_are_sorted_and_hold_each_vlan_once():
    assert units.parse_vlan_list("20-22,10,21", "--trunk") == (10, 20, 21, 22)


@pytest.mark.parametrize(
    "text", ["", ",", "10,", "29-20", "10-", "-10", "10--12", "0-5", "1-4095", "a-b", "10;20", "10-12-14"]
)
def test_malformed_vlan_lists_are_refused(text):
    with pytest.raises(UsageError, match="--trunk"):
        units.parse_vlan_list(text, "--trunk")


@given(st.sets(st.integers(1, 4094), min_size=1))
def test_a_vlan_list_reads_back_as_it_was_written(vlans):
    assert set(units.parse_vlan_list(units.format_vlans(vlans), "--trunk")) == vlans


@pytest.mark.parametrize("text", ["52:54:00:12:34:56", "52-54-00-12-34-56", "52:54:00:AB:cd:EF"])
def test_mac_addresses_are_taken_with_colons_or_dashes(text):
    assert units.parse_mac(text, "MAC") == text.lower().replace("-", ":")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52:54:00:12:34:5g",
        "525400123456",
        "52:54-00:12:34:56",
        "5:4:0:1:3:6",
    ],
)
def test_what_is_no_mac_address_is_refused(text):
    with pytest.raises(UsageError, match="MAC"):
        units.parse_mac(text, "MAC")


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1", "10.0.0.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::ffff:1.2.3.4", "::ffff:1.2.3.4")],
)
def test_addresses_come_back_in_their_shortest_form(text, address):
    assert units.parse_address(text, "--ip") == address


@pytest.mark.parametrize(
    "text", ["", "10.0.0", "10.0.0.256", "10.0.0.1/24", "fe80::1%eth0", "1::2::3", "host", "1.2.3.4\0", "é"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="--ip"):
        units.parse_address(text, "--ip")


@pytest.mark.parametrize("name", ["a", "tap0", "br-int", "a.b_c+d@e", "x" * 15, "é" * 7])
def test_names_that_the_kernel_takes_are_taken(name):
    assert units.check_ifname(name, "NAME") == name


@pytest.mark.parametrize(
    "name", ["", "x" * 16, "é" * 8, "a/b", "a b", "a\nb", "a:b", "a,b", ".", "..", "-x", "a\0b", "a\x1b[31m"]
)
def test_names_that_the_kernel_or_our_grammar_refuses_are_refused(name):
    with pytest.raises(UsageError, match="NAME"):
        units.check_ifname(name, "NAME")


@given(st.integers(0, 10**15))
def test_a_time_reads_back_as_it_was_written(ns):
    assert units.parse_duration(units.format_duration(ns), "TIME") == ns


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (1234, "1.23 kbit/s"),
        (12_340_000, "12.3 Mbit/s"),
        (10**10, "10 Gbit/s"),
    ],
)
def test_rates_are_written_with_three_digits(value, text):
    assert units.format_rate(value) == text
