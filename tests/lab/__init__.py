"""Tests of the lab itself, with the kernel's own bridge as the switch under test."""
