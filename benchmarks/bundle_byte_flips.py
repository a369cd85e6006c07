"""Is every change of a byte found? Eight bundles, every file, one flipped bit in every byte, and every truncation.

    python benchmarks/bundle_byte_flips.py [--work DIR] [--whole 16384]

Files of up to --whole bytes are changed at every byte, larger ones at 4096 places evenly spread. Files that the
manifest names are found by their hash, so only the hash is taken again for each; the three records (manifest.json,
measurements.json, report.md) are read and checked anew as `deploy verify` does. Prints a row a bundle, and what was
missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

from bundle_samples import write_bundles

from edgedeploy.bundle.journal import problems
from edgedeploy.bundle.manifest import Manifest, Measurements
from edgedeploy.bundle.read import check_bundle, read_bundle
from edgedeploy.bundle.tree import MANIFEST, MEASUREMENTS, REPORT, UNHASHED

PLACES = 4096


def positions(size: int, whole: int) -> list[int]:
    """Every byte of a small file, evenly spread ones of a large one."""
    return list(range(size)) if size <= whole else [size * index // PLACES for index in range(PLACES)]


def changes(content: bytes, whole: int):
    """One bit of each byte flipped, and the file cut off there."""
    for place in positions(len(content), whole):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        yield f"bit of byte {place}", bytes(changed)
        yield f"cut at {place}", content[:place]


def records_found(contents: dict[str, bytes]) -> bool:
    """Whether reading and checking the three records refuses them."""
    try:
        manifest = Manifest.model_validate(json.loads(contents[MANIFEST].decode()))
        measurements = Measurements.model_validate(json.loads(contents[MEASUREMENTS].decode()))
    except (ValueError, RecursionError):
        return True
    found, _ = problems(manifest, contents[MANIFEST], measurements, contents[MEASUREMENTS], contents[REPORT])
    return bool(found)


def flip(bundle: Path, whole: int) -> tuple[int, int, list[str]]:
    """Files, changes tried and changes missed."""
    manifest, measurements = read_bundle(bundle)
    check_bundle(bundle, manifest, measurements)
    names = [*manifest.files, *UNHASHED]
    tried, missed = 0, []
    records = {name: (bundle / name).read_bytes() for name in UNHASHED}
    for name in names:
        content = (bundle / name).read_bytes()
        for what, changed in changes(content, whole):
            tried += 1
            if name in UNHASHED:
                found = records_found({**records, name: changed})
            else:
                found = hashlib.sha256(changed).hexdigest() != manifest.files[name]
            if not found:
                missed.append(f"{name}, {what}")
    return len(names), tried, missed


def main() -> None:
    """Make the bundles, change them, print the counts."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--work", type=Path)
    line.add_argument("--whole", type=int, default=16384, help="largest file that is changed at every byte")
    arguments = line.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="edgedeploy-flips-"))
    bundles = sorted((work / "out").iterdir()) if (work / "out").is_dir() else write_bundles(work)
    total, lost = 0, 0
    for bundle in bundles:
        begin = time.monotonic()
        files, tried, missed = flip(bundle, arguments.whole)
        total, lost = total + tried, lost + len(missed)
        print(f"{bundle.name}: {files} files, {tried} changes, {len(missed)} missed, {time.monotonic() - begin:.0f} s")
        for one in missed[:10]:
            print(f"    {one}")
    print(f"{len(bundles)} bundles, {total} changes, {lost} missed")
    sys.exit(1 if lost or len(bundles) < 8 else 0)


if __name__ == "__main__":
    main()
