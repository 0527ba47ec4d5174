"""Jinja's templates as Python byte code, kept between runs: translating them anew takes longer than reading a film.

They lie in the user's own cache folder, which nobody else can write, like the byte code of Python's own modules.
"""

from pathlib import Path

import jinja2
from jinja2.bccache import Bucket, BytecodeCache

from cxredge.runtimes.keep import keep, kept, key_of


class KeptTemplates(BytecodeCache):
    """folder: may be missing, or not to be written; then templates are translated each time.

    made_by: the file that sets the environment up. Jinja keeps a template by its text; what it becomes depends on these
    settings and on Jinja's version too.
    """

    def __init__(self, folder: Path, *, made_by: Path) -> None:
        self._folder = folder
        self._settings = made_by.read_bytes()

    def load_bytecode(self, bucket: Bucket) -> None:
        if (code := kept(self._folder, self._name(bucket))) is not None:
            bucket.bytecode_from_string(code)

    def dump_bytecode(self, bucket: Bucket) -> None:
        keep(self._folder, self._name(bucket), bucket.bytecode_to_string())

    def _name(self, bucket: Bucket) -> str:
        return key_of(self._settings, jinja2.__version__, bucket.key)
