"""Lets mkdocstrings read docstrings in SpeechBrain's style.

They are numpydoc's, but for the names of two sections.
"""

import re

import griffe

SECTIONS = {"Arguments": "Parameters", "Example": "Examples"}
HEADING = re.compile(r"^( *)(Arguments|Example)\n\1-+$", flags=re.MULTILINE)


def in_numpydoc(docstring):
    """Renames the sections of a docstring."""

    def heading(found):
        name = SECTIONS[found[2]]
        return f"{found[1]}{name}\n{found[1]}{'-' * len(name)}"

    return HEADING.sub(heading, docstring)


class SpeechBrainDocstrings(griffe.Extension):
    """Renames the sections before the docstrings are parsed."""

    def on_instance(self, *, obj, **kwargs):
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = in_numpydoc(obj.docstring.value)
