#!/usr/bin/env python3
"""Print the licence files of every crate that is linked into PACKAGE..., each text once.

The licences of our dependencies ask that copyright notices travel with the program. Reads the sources that cargo has
already downloaded; needs no network.
"""

import json
import pathlib
import subprocess
import sys

NAMES = ("license", "licence", "copying", "copyright", "notice", "unlicense")


def linked(metadata, roots):
    """Ids of the crates that end up in the programs: no build scripts, no tests."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    waiting = [id for id, package in packages.items() if package["name"] in roots and package["source"] is None]
    seen = set()
    while waiting:
        id = waiting.pop()
        if id in seen or any("proc-macro" in target["kind"] for target in packages[id]["targets"]):
            continue
        seen.add(id)
        for dependency in nodes[id]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return [packages[id] for id in seen if packages[id]["source"] is not None]


def main(roots):
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    texts = {}
    crates = sorted(linked(metadata, roots), key=lambda package: (package["name"], package["version"]))
    if not crates:
        sys.exit(f"third-party-notices: no dependencies found for {', '.join(roots)}; are these package names?")
    print("This program contains the following libraries.\n")
    for package in crates:
        print(f"{package['name']} {package['version']}: {package['license']}, {package['repository'] or 'crates.io'}")
        directory = pathlib.Path(package["manifest_path"]).parent
        for path in sorted(directory.iterdir()):
            if path.is_file() and path.name.lower().startswith(NAMES):
                text = path.read_text(encoding="utf-8", errors="replace").strip()
                texts.setdefault(text, []).append(f"{package['name']} {package['version']} ({path.name})")
    for text, owners in sorted(texts.items(), key=lambda item: item[1]):
        print("\n" + "=" * 100 + "\n" + "\n".join(owners) + "\n" + "-" * 100 + "\n" + text)


if __name__ == "__main__":
    main(sys.argv[1:])
