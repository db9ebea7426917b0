"""What goes wrong, by name."""


class SourceError(ValueError):
    """What was asked for does not fit the table: said before anything is written."""


class RejectedRowsError(ValueError):
    """Rows that the table cannot hold, each with its key."""


class ClosedWriteError(RuntimeError):
    """The write has been committed, aborted or taken over: what comes late is not stored."""
