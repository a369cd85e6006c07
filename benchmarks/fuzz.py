"""Mutated files of every kind through the real command: nothing runs, nothing is written outside, nothing hangs.

    python benchmarks/fuzz.py [--count 2000] [--seed 0] [--kinds pt2,onnx,...] [--work DIR]

Seeds are genuine files made here (.pt2, state_dict, ONNX, .tflite, .dlc, .mlpackage, data, deploy.toml, bundles).
Each case mutates one: flipped bits, cut off, filled, spliced, numbers and strings in its JSON or TOML replaced, members
of a zip renamed, doubled or exchanged for pickles that touch a canary. The command that a user would type runs in a
forked child of one warm process. Prints a row a kind: cases, exit codes, and what must be 0: canaries (code ran), files
changed outside the output folder, exit 70, cases over 60 s. The same seed makes the same cases.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
LONGEST_S = 60.0
Mutation = Callable[[bytes, random.Random, Path], bytes]


class Touch:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@dataclass
class Tally:
    """What became of the cases of one kind."""

    codes: Counter[str] = field(default_factory=Counter)
    code_ran: int = 0
    outside: int = 0
    slowest_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def flip(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A few bits."""
    changed = bytearray(content)
    for _ in range(dice.choice([1, 1, 2, 8, 64])):
        if changed:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def cut(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """Only the beginning, or only the end."""
    place = dice.randrange(len(content) + 1)
    return content[:place] if dice.random() < 0.7 else content[place:]


def fill(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A stretch of one byte, or of noise."""
    start = dice.randrange(len(content) + 1)
    size = dice.choice([1, 4, 8, 32, 256])
    noise = bytes([dice.choice([0, 0x7F, 0x80, 0xFF])]) * size if dice.random() < 0.7 else dice.randbytes(size)
    return content[:start] + noise + content[start + size :]


def splice(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A piece of the file moved to another place, or doubled."""
    a, b = sorted(dice.randrange(len(content) + 1) for _ in range(2))
    to = dice.randrange(len(content) + 1)
    return content[:to] + content[a : min(b, a + 4096)] + content[to:]


def numbers(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A run of digits in text becomes another number; without text, four bytes become an extreme one."""
    runs = [i for i in range(len(content)) if content[i : i + 1].isdigit() and not content[i - 1 : i].isdigit()]
    extreme = dice.choice(
        [b"-1", b"0", b"4294967295", b"9223372036854775807", b"1e999", b"NaN", b"9" * 5000, b"2147483648"]
    )
    if runs and dice.random() < 0.6:
        start = dice.choice(runs)
        end = start
        while content[end : end + 1].isdigit():
            end += 1
        return content[:start] + extreme + content[end:]
    start = dice.randrange(max(1, len(content) - 8))
    word = dice.choice([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00\x00\x00"])
    return content[:start] + word + content[start + 4 :]


def words(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A quoted string becomes a hostile one."""
    quotes = [i for i in range(len(content)) if content[i : i + 1] == b'"']
    if len(quotes) < 2:
        return flip(content, dice, canary)
    index = dice.randrange(len(quotes) - 1)
    hostile = dice.choice(
        [b"../../../../etc/passwd", b"/etc/shadow", b"os:system", b"torch.os.system", b"\\u0000", b"\\u001b]0;x\\u0007",
         b"a" * 5000, b"", b"9**9**9**9", b"torch.ops.aten.from_file.default", b"__import__('os')", b"{}" * 500]
    )  # fmt: skip
    return content[: quotes[index] + 1] + hostile + content[quotes[index + 1] :]


def members(content: bytes, dice: random.Random, canary: Path) -> bytes:
    """A zip whose members are renamed, doubled, dropped, emptied or replaced by pickles and zips of pickles."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = [(name, archive.read(name)) for name in archive.namelist()]
    except zipfile.BadZipFile:
        return flip(content, dice, canary)
    index = dice.randrange(len(parts))
    name, data = parts[index]
    evil = pickle.dumps(Touch(canary), protocol=dice.choice([0, 2, 4]))
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(dice.choice(["archive/data.pkl", "archive/DATA.PKL", "data.pkl"]), evil)
        archive.writestr("archive/version", b"3\n")
    choice = dice.randrange(9)
    if choice == 0:
        parts[index] = (name.swapcase(), data)
    elif choice == 1:
        parts.append((name, evil))
    elif choice == 2:
        parts[index] = (name, evil)
    elif choice == 3:
        parts[index] = (name, inner.getvalue())
    elif choice == 4:
        del parts[index]
    elif choice == 5:
        parts[index] = (name, words(data, dice, canary) if data[:1] in b"{[" else flip(data, dice, canary))
    elif choice == 6:
        parts.append(
            (f"{name.partition('/')[0]}/{dice.choice(['data/constants/opaque_obj_0', 'extra/x.pkl', '../x'])}", evil)
        )
    elif choice == 7:
        parts[index] = (name, numbers(data, dice, canary))
    else:
        parts[index] = (name, data * dice.choice([0, 2, 3]))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for member, part in parts:
                archive.writestr(member or "x", part)
    return out.getvalue()


PLAIN: tuple[Mutation, ...] = (flip, cut, fill, splice, numbers)
TEXT: tuple[Mutation, ...] = (*PLAIN, words, words)
ZIP: tuple[Mutation, ...] = (*PLAIN, members, members, members, members)


@dataclass(frozen=True)
class Kind:
    """One kind of file: where its seed lies, how it is mutated, and what a user types on it."""

    name: str
    seed: Path
    mutations: tuple[Mutation, ...]
    commands: tuple[tuple[str, ...], ...]


def seeds(folder: Path) -> list[Kind]:
    """Make a genuine file of each kind."""
    import numpy as np
    import onnx
    import safetensors.torch
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
    import digits_cnn

    base = folder / "seeds"
    digits_cnn.write(base / "digits")
    model = base / "digits" / "model.pt"
    calib = base / "digits" / "model.calib.npz"
    with np.load(calib) as data:
        np.savez(base / "few.npz", **{name: data[name][:12] for name in data.files})
    program = torch.export.load(str(model))
    torch.save(program.state_dict, base / "weights.pt")
    torch.save(program.state_dict, base / "legacy.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in program.state_dict.items()}, base / "weights.safetensors"
    )
    from edgedeploy.graph.capture import capture
    from edgedeploy.model.load import load_model

    onnx.save(capture(load_model(model)).model, base / "model.onnx")
    bundles = {}
    for target in ("x86-avx2", "stm32l4r5", "snapdragon888", "iphone14pro"):
        out = base / "out"
        command = ["-t", target, "-q", "-o", str(out), "--calibration", str(base / "few.npz"), str(base / "model.onnx")]
        if target == "iphone14pro":
            command[-1] = str(model)
        run_command(command, 300)
        found = [path for path in out.iterdir() if path.name.startswith(target)] if out.is_dir() else []
        if found:
            bundles[target] = found[0]
    bare = ("-t", "x86-avx2", "-q", "--candidate", "float32", "-o", "{out}")
    (base / "deploy.toml").write_text(
        '[model]\ninputs = ["image:1x1x8x8:float32"]\nlabels = ["a", "b"]\n[data]\ncalibration = "few.npz"\n'
        '[metric]\noutput = "output"\nkind = "classification"\n[quality]\nmin_cosine = 0.9\n'
    )
    (base / "profile.toml").write_text(
        'extends = "x86-avx2"\n[device]\nname = "mine"\n[budget]\nsize_mb = { max = 1.5 }\n'
    )
    data = str(base / "few.npz")
    onnx_model = str(base / "model.onnx")
    estimate, inspect = ("estimate", "-t", "x86-avx2", "{file}"), ("inspect", "{file}")
    as_profile = ("-t", "{file}", *bare[2:], "--calibration", data, onnx_model)
    kinds = [
        Kind("pt2", model, ZIP, (estimate, inspect, (*bare, "{file}"))),
        Kind("pt", base / "weights.pt", ZIP, (("inspect", "{file}"), (*bare, "{file}"))),
        Kind("legacy", base / "legacy.pt", PLAIN, ((*bare, "{file}"), ("inspect", "{file}"))),
        Kind("safetensors", base / "weights.safetensors", TEXT, ((*bare, "{file}"), ("inspect", "{file}"))),
        Kind("onnx", base / "model.onnx", PLAIN, (estimate, inspect, (*bare, "{file}"))),
        Kind("npz", base / "few.npz", ZIP, ((*bare, "--calibration", "{file}", onnx_model),)),
        Kind("deploy.toml", base / "deploy.toml", TEXT, ((*bare, "--calibration", data, "{model}"),)),
        Kind("profile.toml", base / "profile.toml", TEXT, (as_profile, ("targets", "{file}"))),
    ]  # fmt: skip
    for target, bundle in bundles.items():
        for path in sorted(bundle.rglob("*")):
            if path.suffix == ".tflite" or path.suffix == ".dlc":
                kinds.append(Kind(path.suffix[1:], path, PLAIN, (("inspect", "{file}"),)))
            if path.suffix == ".mlmodel":
                kinds.append(Kind("mlmodel", path, PLAIN, (("inspect", "{file}"),)))
        kinds.append(Kind(f"bundle {target}", bundle, TEXT, (("verify", "{file}"), ("inspect", "{file}"))))
    return kinds


def run_command(argv: list[str], timeout_s: float, stderr: Path | None = None) -> tuple[str, float]:
    """Run one command line in a forked child; returns its exit code ("hang" where it was ended) and its seconds."""
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(stderr or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            from edgedeploy.cli import main

            main(argv)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            os._exit(code)
    while time.monotonic() - begin < timeout_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status)), time.monotonic() - begin
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hang", time.monotonic() - begin


def mutate(kind: Kind, dice: random.Random, place: Path, canary: Path) -> Path:
    """Write the mutated file or bundle and return its path."""
    if kind.seed.is_dir():
        shutil.copytree(kind.seed, place / kind.seed.name)
        bundle = place / kind.seed.name
        victim = dice.choice(sorted(path for path in bundle.rglob("*") if path.is_file()))
        victim.write_bytes(dice.choice(kind.mutations)(victim.read_bytes(), dice, canary))
        if dice.random() < 0.7:  # whoever makes the bundle makes its manifest: hashes are no protection
            reseal(bundle)
        return bundle
    path = place / kind.seed.name
    path.write_bytes(dice.choice(kind.mutations)(kind.seed.read_bytes(), dice, canary))
    return path


def reseal(bundle: Path) -> None:
    """Put the changed files' hashes into the manifest, and the manifest's into the measurements."""
    import hashlib

    try:
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        measurements = json.loads((bundle / "measurements.json").read_bytes())
        for name in manifest["files"]:
            manifest["files"][name] = hashlib.sha256((bundle / name).read_bytes()).hexdigest()
        text = (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()
        (bundle / "manifest.json").write_bytes(text)
        measurements["manifest_sha256"] = hashlib.sha256(text).hexdigest()
        (bundle / "measurements.json").write_bytes((json.dumps(measurements, indent=2, sort_keys=True) + "\n").encode())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass


def tree(*folders: Path) -> dict[str, int]:
    """Every path below the folders with its time of change."""
    return {
        str(path): path.lstat().st_mtime_ns for folder in folders for path in folder.rglob("*") if not path.is_dir()
    }


def main() -> None:
    """Run the cases and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--work", type=Path)
    chosen = parser.parse_args()
    work = chosen.work or Path(tempfile.mkdtemp(prefix="fuzz-"))
    work.mkdir(parents=True, exist_ok=True)
    home = work / "home"
    home.mkdir(exist_ok=True)
    (home / "precious.txt").write_text("kept")
    os.environ["HOME"] = str(home)
    os.chdir(home)
    import onnxscript  # noqa: F401
    import torch.onnx

    torch.set_num_threads(1)
    kinds = seeds(work)
    wanted = {name for name in chosen.kinds.split(",") if name}
    kinds = [kind for kind in kinds if not wanted or kind.name in wanted]
    canary = work / "CANARY"
    tallies = {kind.name: Tally() for kind in kinds}
    guarded = (home, work / "seeds")
    for number in range(chosen.count):
        kind = kinds[number % len(kinds)]
        dice = random.Random(f"{chosen.seed}-{number}")
        place = work / "case"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        file = mutate(kind, dice, place, canary)
        if kind.name == "deploy.toml":
            for name in ("model.onnx", "few.npz"):
                shutil.copy2(work / "seeds" / name, place / name)
        fill_in = {"{file}": str(file), "{out}": str(place / "out"), "{model}": str(place / "model.onnx")}
        argv = [fill_in.get(word, word) for word in dice.choice(kind.commands)]
        before, beside = tree(*guarded), {path.name for path in place.iterdir()}
        code, seconds = run_command(argv, LONGEST_S + 30, work / "stderr")
        tally = tallies[kind.name]
        tally.codes[code] += 1
        tally.slowest_s = max(tally.slowest_s, seconds)
        error = (work / "stderr").read_text(errors="replace")
        problems = []
        if canary.exists():
            canary.unlink()
            tally.code_ran += 1
            problems.append("CODE RAN")
        changed = [path for path, _ in tree(*guarded).items() ^ before.items()]
        changed += sorted({path.name for path in place.iterdir()} - beside - {"out"})
        if changed:
            tally.outside += 1
            problems.append(f"changed outside: {', '.join(changed[:3])}")
        if code not in ("0", "1", "2", "3", "4", "5") or seconds > LONGEST_S or "\x1b" in error or "Traceback" in error:
            problems.append(f"exit {code} after {seconds:.0f} s")
        if problems:
            kept = work / f"wrong-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(place, kept, symlinks=True)
            tally.wrong.append(f"{number}: {' '.join(argv)}: {', '.join(problems)}: {error.strip()[-300:]}")
            print("WRONG", kind.name, tally.wrong[-1], flush=True)
    rows = [("kind", "cases", "exit codes", "code ran", "outside", "wrong", "slowest s")]
    for name, tally in tallies.items():
        codes = " ".join(f"{code}:{count}" for code, count in sorted(tally.codes.items()))
        rows.append((name, str(sum(tally.codes.values())), codes, str(tally.code_ran), str(tally.outside),
                     str(len(tally.wrong)), f"{tally.slowest_s:.1f}"))  # fmt: skip
    for row in rows:
        print("{:22} {:>6} {:40} {:>8} {:>8} {:>6} {:>9}".format(*row))
    total = [
        sum(values)
        for values in zip(
            *((sum(t.codes.values()), t.code_ran, t.outside, len(t.wrong)) for t in tallies.values()), strict=True
        )
    ]
    print(f"{total[0]} cases: code ran {total[1]}, files outside {total[2]}, wrong {total[3]}")
    sys.exit(1 if total[1] or total[2] or total[3] else 0)


if __name__ == "__main__":
    main()
