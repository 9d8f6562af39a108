"""The plug-ins that fedloom ships: a test that ran before in this process may have registered one of its own."""

from fedloom.base.plugin import lookup, names


def shipped(family):
    """The names of a family's plug-ins in its own folder."""
    return [name for name in names(family) if lookup(family, name).__module__.startswith(family.folder)]
