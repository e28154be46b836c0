"""Pack a folder behind the launcher: dist/scitq. Usage: bundle.py LAUNCHER FOLDER NAME OUTPUT

The layout is in packaging/launcher/archive.c. The same folder gives the same bytes.
"""

import struct
import sys
from pathlib import Path

import zstandard

MAGIC = b"SCITQAR2"
LEVEL = 12  # 19 saves one megabyte of twenty-three and takes ten times as long


def fnv1a(data: bytes) -> int:
    """The 64-bit hash of Fowler, Noll and Vo, by which the launcher sees that its manifest is whole."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def entries(folder: Path) -> list[tuple[str, int, bytes | Path, int, str]]:
    """Kind, mode, content, size and path of everything, folders before what they hold."""
    found: list[tuple[str, int, bytes | Path, int, str]] = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            target = str(path.readlink()).encode()
            found.append(("l", 0o777, target, len(target), name))
        elif path.is_dir():
            found.append(("d", 0o700, b"", 0, name))
        else:
            mode = 0o700 if path.parent == folder or path.stat().st_mode & 0o100 else 0o600
            found.append(("f", mode, path, path.stat().st_size, name))
    return found


def pack(launcher: Path, folder: Path, name: str, output: Path) -> None:
    """Write the one file under a temporary name, then put it in place."""
    import hashlib

    found = entries(folder)
    loader = next(one[4] for one in found if one[4].startswith("ld-"))
    digest = hashlib.sha256()
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(LEVEL, window_log=24, threads=2, write_checksum=True)
    )
    temporary = output.with_name(output.name + ".part")
    with temporary.open("wb") as file:
        file.write(launcher.read_bytes())
        file.write(b"\0" * (-file.tell() % 4096))
        start = file.tell()
        with compressor.stream_writer(file, closefd=False) as frame:
            for _, _, content, size, path in found:
                data = content.read_bytes() if isinstance(content, Path) else content
                if len(data) != size:
                    raise SystemExit(f"bundle.py: {path} changed while it was packed")
                digest.update(f"{path}\0{size}\0".encode())
                digest.update(data)
                frame.write(data)
        end = file.tell()
        lines = [f"v 0 0 {name}-{digest.hexdigest()[:12]}", f"i 0 0 {loader}"]
        lines += [f"{kind} {mode:o} {size} {path}" for kind, mode, _, size, path in found]
        manifest = ("\n".join(lines) + "\n").encode()
        file.write(manifest)
        file.write(MAGIC + struct.pack("<6Q", start, end - start, end, len(manifest), len(found), fnv1a(manifest)))
    temporary.chmod(0o755)
    temporary.replace(output)
    unpacked = sum(one[3] for one in found)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {len(found)} entries, {unpacked / 1e6:.1f} MB unpacked, {lines[0][6:]}")


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
