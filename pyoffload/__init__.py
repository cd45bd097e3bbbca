"""pyoffload: a virtual switch, firewall and tunnels as eBPF programs in the kernel's fast path."""

__version__ = "0.1.0"
