"""The one exception that means "the user can fix this": the CLI prints it as one line, exit code 2."""


class UserError(Exception):
    """Bad input, a missing file, a wrong recipe key. The message names the mistake and the fix."""
