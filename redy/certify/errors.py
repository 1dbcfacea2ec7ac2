"""What can be wrong with a certificate or with the files that it is about."""


class Rejected(Exception):
    """The certificate proves nothing: the message says the first place that fails."""


class Unusable(Exception):
    """The input cannot be read, or a network holds an operation that the checker does not know."""
