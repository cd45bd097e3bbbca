"""A VLAN interface where the kernel has none: ``vlan_pump.py SOCKET TAP VLAN``.

Frames with that tag which come to a packet socket (PACKET_VNET_HDR, PACKET_AUXDATA) go untagged to a tap; frames from
the tap go out of the socket with the tag. Both have virtio headers, so super-packets and unfinished checksums pass.
"""

import errno
import os
import select
import socket
import struct
import sys

MAX_FRAME = 1 << 17
VNET = struct.Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
AUXDATA = struct.Struct("IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
VLAN_VALID = 0x10
NEEDS_CSUM = 1
ETHERTYPE_VLAN = 0x8100


def main() -> None:
    trunk = socket.socket(fileno=int(sys.argv[1]))
    tap, vlan = int(sys.argv[2]), int(sys.argv[3])
    poll = select.poll()
    poll.register(trunk, select.POLLIN)
    poll.register(tap, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == tap:
                tag_and_send(tap, trunk, vlan)
            else:
                untag_and_deliver(trunk, tap, vlan)


def untag_and_deliver(trunk: socket.socket, tap: int, vlan: int) -> None:
    try:
        data, extra, _, _ = trunk.recvmsg(MAX_FRAME, socket.CMSG_SPACE(AUXDATA.size))
    except OSError as err:
        if err.errno in (errno.EAGAIN, errno.ENETDOWN):
            return
        raise
    status, _, _, _, _, tci, _ = AUXDATA.unpack(extra[0][2])
    if status & VLAN_VALID and tci & 0xFFF == vlan:
        put(tap, data)


def tag_and_send(tap: int, trunk: socket.socket, vlan: int) -> None:
    try:
        data = os.read(tap, MAX_FRAME)
    except BlockingIOError:
        return
    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset = VNET.unpack_from(data)
    # Everything behind the addresses moves by the four bytes of the tag.
    header = VNET.pack(
        flags,
        gso_type,
        hdr_len + 4 if hdr_len else 0,
        gso_size,
        csum_start + 4 if flags & NEEDS_CSUM else 0,
        csum_offset,
    )
    frame = data[VNET.size :]
    put(trunk.fileno(), header + frame[:12] + struct.pack("!HH", ETHERTYPE_VLAN, vlan) + frame[12:])


def put(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        return  # the interface is down or refuses the frame: lost, as on any NIC


if __name__ == "__main__":
    main()
