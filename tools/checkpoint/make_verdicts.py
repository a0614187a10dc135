# SPDX-License-Identifier: Apache-2.0
"""Asks the reference reader about every handmade safetensors file.

    dump_header_cases FOLDER      (built with the tests)
    python tools/checkpoint/make_verdicts.py FOLDER tests/golden/checkpoint/verdicts.json

Needs safetensors == 0.8.0 (the Rust implementation behind its Python package).
"""
import json
import pathlib
import sys

import safetensors

PINNED = "0.8.0"


def accepted(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
        return True
    except safetensors.SafetensorError:
        return False


def main() -> None:
    if safetensors.__version__ != PINNED:
        sys.exit(f"safetensors {PINNED} is needed, this is {safetensors.__version__}")
    folder, out = map(pathlib.Path, sys.argv[1:])
    verdicts = {p.stem: accepted(p.read_bytes()) for p in sorted(folder.glob("*.safetensors"))}
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in verdicts.items())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(f'{{"reference": "safetensors {PINNED}", "accepted": {{\n{lines}\n}}}}\n')
    print(f"{len(verdicts)} files, {sum(verdicts.values())} accepted")


if __name__ == "__main__":
    main()
