# SPDX-License-Identifier: GPL-2.0-only
import os, re, sys, time
from pathlib import Path

config, *files = sys.argv[1:]
text = "".join(Path(name).read_text() for name in files if Path(name).exists())
depends = {}
for block in re.split(r"^(?=config )", text, flags=re.M)[1:]:
    found = re.search(r"^\s+depends on (.*)$", block, re.M)
    depends[block.split()[1]] = found[1].split(" && ") if found else []
asked = set(re.findall(r"^CONFIG_(\w+)=y$", Path(config).read_text(), re.M))
kept = set()
for _ in depends:
    kept |= {name for name in depends if name in asked and kept.issuperset(depends[name])}
lines = [f"CONFIG_{n}=y" if n in kept else f"# CONFIG_{n} is not set" for n in depends]
Path(config).write_text("\n".join(lines) + "\n")
