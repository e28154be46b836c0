"""Write the module by which the one file knows what it is made of; print the version. Usage: record.py COMMIT OUTPUT"""

import sys
from pathlib import Path

import scitq
from locked import locked

commit, output = sys.argv[1:]
lines = ['"""Made by build/record.py."""', "", f"COMMIT = {commit!r}", f"LIBRARIES = {dict(sorted(locked().items()))!r}"]
Path(output).write_text("\n".join(lines) + "\n")
print(scitq.__version__)
