"""Where the one file begins, with SIGINT blocked by the launcher (packaging/launcher)."""

from scitq.util import bundle

bundle.settle()

import sys  # noqa: E402 - what the environment decides is imported after it is restored

import pyimod02_importers  # noqa: E402 - PyInstaller's own, there in the frozen program alone

from scitq.__main__ import main  # noqa: E402


def iter_modules(finder, prefix=""):
    """The modules of a package, for pkgutil; PyInstaller has it in a hook that makes every start import pkgutil."""
    node = pyimod02_importers.get_pyz_toc_tree()
    for part in filter(None, finder._pyz_entry_prefix.split(".")):
        node = node.get(part)
        if not isinstance(node, dict):
            return
    for name, content in node.items():
        yield prefix + name, isinstance(content, dict)


pyimod02_importers.PyiFrozenFinder.iter_modules = iter_modules

if __name__ == "__main__":
    sys.exit(main())
