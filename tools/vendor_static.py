"""Bring the page's libraries into webui/static/vendor/ and write VENDOR.md.

    python -m tools.vendor_static

Takes exactly the versions named below from the npm registry (with `npm pack`), copies the few files that
the page uses without changing a byte, collects the icons into one sprite, and writes each file's sha256 into
VENDOR.md. tests/webui/test_static_files.py holds that list against the files. Run it only to change a
version or an icon.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).resolve().parent.parent / "webui" / "static" / "vendor"

LANGUAGES = (
    "bash", "c", "cpp", "csharp", "css", "diff", "go", "ini", "java", "javascript", "json", "kotlin",
    "lua", "markdown", "php", "python", "ruby", "rust", "sql", "swift", "typescript", "xml", "yaml")

ICONS = (
    "armchair", "arrow-down", "arrow-left", "arrow-right", "arrow-up", "bot", "check", "chevron-down",
    "chevron-left", "chevron-right", "copy", "download", "ellipsis", "file-code", "file-json", "file-text",
    "info", "keyboard", "lock", "log-out", "menu", "message-circle", "mic", "mic-off", "monitor", "moon",
    "panel-left", "panel-right", "paperclip", "pencil", "pin", "pin-off", "play", "plus", "printer",
    "refresh-cw", "rotate-ccw", "save", "search", "send", "settings", "sliders-horizontal", "square", "sun",
    "trash-2", "triangle-alert", "undo-2", "upload", "user-plus", "users", "x")

# package -> (version, licence, {file in the package: file in vendor/})
PACKAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "marked": ("18.2.1", "MIT", {"lib/marked.esm.js": "marked/marked.esm.js", "LICENSE": "marked/LICENSE"}),
    "dompurify": ("3.4.18", "Apache-2.0 (or MPL-2.0)", {
        "dist/purify.min.js": "dompurify/purify.min.js", "LICENSE": "dompurify/LICENSE"}),
    "@highlightjs/cdn-assets": ("11.12.0", "BSD-3-Clause", {
        "es/core.min.js": "highlight/core.min.js", "LICENSE": "highlight/LICENSE",
        **{f"es/languages/{name}.min.js": f"highlight/languages/{name}.min.js" for name in LANGUAGES}}),
    "katex": ("0.19.1", "MIT", {"dist/katex.min.js": "katex/katex.min.js", "LICENSE": "katex/LICENSE"}),
    "@fontsource/noto-sans-math": ("5.3.0", "OFL-1.1", {
        "files/noto-sans-math-latin-400-normal.woff2": "noto-sans-math/noto-sans-math.woff2",
        "LICENSE": "noto-sans-math/LICENSE"}),
    "lucide-static": ("1.62.0", "ISC", {"LICENSE": "lucide/LICENSE"}),
}


def unpack(package: str, version: str, folder: Path) -> Path:
    """Download one package into `folder`; the path of its unpacked files."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is not on the PATH; it is needed to take the libraries from the npm registry.")
    done = subprocess.run([npm, "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True,
                          capture_output=True, text=True)
    target = folder / package.replace("/", "_")
    with tarfile.open(folder / done.stdout.split()[-1]) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def sprite(icons: Path) -> str:
    """One SVG of symbols from single icons; stroke and size come from the page's CSS."""
    symbols = []
    for name in ICONS:
        svg = (icons / f"{name}.svg").read_text(encoding="utf-8")
        inner = " ".join(svg[svg.index(">", svg.index("<svg")) + 1:svg.index("</svg>")].split())
        symbols.append(f'<symbol id="{name}" viewBox="0 0 24 24">{inner}</symbol>')
    return '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"


def main() -> None:
    """Rebuild vendor/ from nothing."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for package, (version, licence, files) in PACKAGES.items():
            source = unpack(package, version, Path(scratch))
            targets = {VENDOR / new: (source / old).read_bytes() for old, new in files.items()}
            if package == "lucide-static":
                targets[VENDOR / "lucide" / "sprite.svg"] = sprite(source / "icons").encode()
            for path, content in targets.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                digest = hashlib.sha256(content).hexdigest()
                name = path.relative_to(VENDOR).as_posix()
                rows.append(f"| {name} | {package} | {version} | {licence} | `{digest}` |")
    (VENDOR / ".gitattributes").write_text("* -text\n")
    (VENDOR / "VENDOR.md").write_text(
        "# Libraries of other people\n\n"
        "Taken unchanged from the npm registry by `python -m tools.vendor_static`\n"
        "(`lucide/sprite.svg` is put together from the single icons). Each licence lies beside its files.\n\n"
        "| file | package | version | licence | sha256 |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n",
        encoding="utf-8")
    print(f"{len(rows)} files in {VENDOR}")


if __name__ == "__main__":
    main()
