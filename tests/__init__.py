"""Tests of pyoffload: real packets through real programs, in network namespaces made for the test."""
