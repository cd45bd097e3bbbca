"""Run bcc once, in a process of its own: LLVM aborts on some sources, changes directory and writes errors to fd 2.

Started by compiler.py as a script; its argument is the descriptor for the answer. Standard input: a JSON request
{"source", "cflags", "bcc"}; the answer is {"programs": {name: instructions in hex}}. A request with "explain" loads one program through bcc instead, which knows
the source lines, and answers {"log": what the verifier says}; its map descriptors are inherited.

Exit codes: 0 answered; 1 it does not compile (the compiler's words are on standard error); 4 there is no bcc.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from typing import Any

LOG_SIZE = 64 << 20


def import_bcc(directory: str) -> Any:
    """The distribution's bcc, whatever interpreter this is: it is pure Python over libbcc.so.0."""
    spec = importlib.util.spec_from_file_location(
        "bcc", f"{directory}/__init__.py", submodule_search_locations=[directory]
    )
    if spec is None or spec.loader is None or not os.path.exists(f"{directory}/__init__.py"):
        sys.exit(4)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bcc"] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, OSError) as err:  # the library behind it is missing
        print(err, file=sys.stderr)
        sys.exit(4)
    return module


def main() -> None:
    request = json.load(sys.stdin)
    bcc = import_bcc(request["bcc"])
    from bcc.libbcc import lib

    try:
        module = bcc.BPF(text=request["source"].encode(), cflags=request["cflags"]).module
    except Exception:  # the compiler has said why
        sys.exit(1)
    answer: dict[str, Any]
    if "explain" in request:
        answer = {"log": explain(lib, module, request["explain"])}
    else:
        names = [lib.bpf_function_name(module, i) for i in range(lib.bpf_num_functions(module))]
        answer = {
            "programs": {
                name.decode(): ctypes.string_at(
                    lib.bpf_function_start(module, name), lib.bpf_function_size(module, name)
                ).hex()
                for name in names
            }
        }
    with os.fdopen(int(sys.argv[1]), "w") as out:
        json.dump(answer, out)
    # Without this, bcc's destructors run for a tenth of a second.
    os._exit(0)


def explain(lib: Any, module: Any, wanted: dict[str, Any]) -> str:
    insns = ctypes.create_string_buffer(bytes.fromhex(wanted["insns"]))
    log = ctypes.create_string_buffer(LOG_SIZE)
    name = wanted["name"].encode()
    lib.bcc_func_load(
        module,
        wanted["type"],
        name,
        ctypes.addressof(insns),
        len(insns) - 1,
        b"GPL",
        0,
        1,
        log,
        LOG_SIZE,
        None,
        wanted["attach_type"],
    )
    return log.value.decode("utf-8", "replace")


if __name__ == "__main__":
    main()
